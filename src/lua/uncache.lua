#!lua name=uncache
--
-- uncache.lua: the Redis half of fenced fills (Redis 7 and later, Valkey).
--
-- A reader misses, reads the database and stores what it read.  Its value may
-- be stored only if the snapshot that read it saw every transaction that
-- invalidated the key.  Three things answer that, none of them a clock:
--   the fence record of the key knows the invalidations since its birth;
--   a token, handed out on the miss, names that record and no other, so that a
--   snapshot taken by a statement that was given the token (a "fresh" one)
--   has seen everything delivered before the birth;
--   for older snapshots a beat says the same: a transaction of the worker that
--   committed after everything that was delivered when it was announced.
-- Whatever is missing, unknown or in doubt refuses the fill, never the read.
--
-- What proves something only while this process lives is kept in Lua locals.
-- They survive FLUSHALL and are empty after a restart, a reload of the library
-- and, as functions are replicated by their effects, a promotion.  Without an
-- epoch every fill is refused; a worker sets one when it has sent all it owes.
--
-- The record of key K is a string beside K, in the same Cluster slot:
--   uncache::K     where K has a hash tag   (cart:{42} -> uncache::cart:{42})
--   uncache:{K}    where K has no '}'       (user:42 -> uncache:{user:42})
--   none           for any other K (a}b, the empty key): never filled
-- Text: epoch:counter:beats:incarnation:xid,xid,..:doubts, a doubt being
-- incarnation/xid@deadline.  All plain xids are of one incarnation: one life of
-- one PostgreSQL server.  xids stay text, a Lua number is exact to 53 bits only.

-- A library serves the workers of all earlier versions: what it is given or answers may
-- grow at the end, and what is missing there means what it meant before.  So a worker
-- replaces an older library, and never a newer one.
--
-- A life is a server from one start to the next, named by its incarnation.  Of the lives
-- with one system identifier, at one database of Redis, one may fill: the one with the
-- highest claim (its administrator has said that the others are copies), of these the one
-- on the newest timeline (it was promoted), of these the one that came last (it has been
-- started again).  The others are superseded.  Is the one that came last known to its
-- predecessor, which goes on calling, then both live, and neither may fill.  Servers with
-- different identifiers all fill, unless one has laid claim to the place, which is a
-- database of Redis with a prefix of keys.

local VERSION = 2
local MAX_XIDS = 16      -- in a record; writers of one key between two fills
local MAX_BEATS = 600    -- ten minutes of them: standbys may lag that far
local MAX_LIVES = 64     -- a Redis serves some servers; each start of one is a life
local MAX_PLACES = 256   -- of a life: it has at most 128 workers, with some targets each
local BEAT_LAG = 10000   -- xids that are given away while an announcement is on its way

local memory = {
	epoch = nil,         -- text; nil: every fill is refused
	epochs = 0,          -- set so far; part of each epoch, so none comes twice
	counter = 0,         -- records born so far; their names within the epoch
	fence_ttl = nil,     -- ms, of records born on a miss
	incarnations = {},   -- id -> life, see new_life()
	lives = 0,           -- so far; part of each life, so that it is known which came last
	forgotten = nil,     -- true: lives have been forgotten, and with them what they stored
	announced = 0,       -- beats so far, of all incarnations
	beats = {},          -- number -> {incarnation =, xid =, confirmed =}
}
local counts = {stored = 0, refused = 0}

local function check(ok)
	if not ok then error({err = 'ERR wrong arguments, see uncache.lua'}) end
end

local function record_name(key)
	if key ~= '' and not key:find('}', 1, true) then return 'uncache:{' .. key .. '}' end
	local tag = key:match('{(.-)}')
	if tag and tag ~= '' then return 'uncache::' .. key end
end

local function has(list, item)
	return (',' .. list .. ','):find(',' .. item .. ',', 1, true) ~= nil
end

local function with(list, item)
	return list == '' and item or list .. ',' .. item
end

-- xid order; both without leading zeros
local function before(a, b)
	return #a < #b or (#a == #b and a < b)
end

-- Has the transaction ended, in the eyes of the snapshot?
local function visible(snapshot, incarnation, xid)
	return incarnation == snapshot.incarnation
		and (before(xid, snapshot.xmin)
			or (before(xid, snapshot.xmax) and not has(snapshot.xip, xid)))
end

local function now()
	local time = redis.call('TIME')
	return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- The list of doubts without the one named (or nil), and without those that
-- nobody renewed: the transaction's server is gone, or has forgotten it.
local function doubts_without(doubts, name)
	local kept, time = '', doubts ~= '' and now()
	for doubt, deadline in doubts:gmatch('([^,@]+)@(%d+)') do
		if doubt ~= name and tonumber(deadline) > time then
			kept = with(kept, doubt .. '@' .. deadline)
		end
	end
	return kept
end

-- Returns the key's record, or nil, and the record's name, nil where it can't
-- have one: the key's fault, or something else has that name.
local function load_record(key)
	local name = record_name(key)
	local text = name and redis.pcall('GET', name)
	if not text then return nil, name end
	if text.err and text.err:find('^WRONGTYPE') then return nil end
	if text.err then error(text) end
	local r = {}
	r.epoch, r.counter, r.beats, r.incarnation, r.xids, r.doubts = tostring(text):match(
		'^([^:]*):(%d+):(%d+):([^:]*):([%d,]*):([^:]*)$')
	return r.epoch and r, name
end

-- ttl nil: the record expires as before.  Not before its doubts: others may have a
-- shorter fence_ttl than who renews them.
local function save_record(name, r, ttl)
	for deadline in (ttl and r.doubts or ''):gmatch('@(%d+)') do
		ttl = math.max(ttl, deadline - now())
	end
	local text = table.concat({r.epoch, r.counter, r.beats, r.incarnation, r.xids, r.doubts}, ':')
	redis.call('SET', name, text, unpack(ttl and {'PX', ttl} or {'KEEPTTL'}))
end

-- A record without a past: no token and no snapshot of before will do.
local function new_record(doubts)
	memory.counter = memory.counter + 1
	return {epoch = memory.epoch or '', counter = ('%d'):format(memory.counter),
		beats = memory.announced, incarnation = '', xids = '', doubts = doubts}
end

-- FCALL uncache_get 1 key
-- Returns [value], or on a miss [nil, token]; [nil, nil] where a fill is not
-- possible now.  Errors: those of GET.
local function uncache_get(keys, args)
	check(#keys == 1 and #args == 0)
	local value = redis.call('GET', keys[1])
	if value then return {value} end

	local record, name = load_record(keys[1])
	if not (memory.epoch and name) then return {false, false} end
	if not (record and record.epoch == memory.epoch) then
		record = new_record(record and doubts_without(record.doubts) or '')
		save_record(name, record, memory.fence_ttl)
	end
	return {false, record.epoch .. ':' .. record.counter}
end

-- Has the snapshot seen all that was delivered before the record's birth?
-- The first beat after it is the first that any snapshot sees.
local function saw_birth(snapshot, record)
	if snapshot.fresh == '1' then return true end
	for number = math.max(record.beats + 1, memory.announced - MAX_BEATS + 1), memory.announced do
		local beat = memory.beats[number]
		if beat.confirmed and beat.incarnation == snapshot.incarnation then
			return visible(snapshot, beat.incarnation, beat.xid)
		end
	end
	memory.incarnations[snapshot.incarnation].wanted = true
	return false
end

local function saw_invalidations(snapshot, record)
	for xid in record.xids:gmatch('%d+') do
		if not visible(snapshot, record.incarnation, xid) then return false end
	end
	for incarnation, xid in doubts_without(record.doubts):gmatch('([^,/]+)/(%d+)@') do
		if not visible(snapshot, incarnation, xid) then return false end
	end
	return true
end

-- Whether readers of the incarnation may fill the key, as far as other servers go.
local function is_live(incarnation, key)
	local life = memory.incarnations[incarnation]
	if not life or life.by then return false end
	for _, place in pairs(life.places) do
		if place.by and key:sub(1, #place.prefix) == place.prefix then return false end
	end
	return true
end

-- Returns the life whose reader it is, or nothing.
local function may_fill(key, text)
	local s, record = {}, load_record(key)
	s.epoch, s.counter, s.incarnation, s.fresh, s.xmin, s.xmax, s.xip =
		text:match('^([^:]+):(%d+):([^:]+):([01]):(%d+):(%d+):([%d,]*)$')
	return s.epoch == memory.epoch and is_live(s.incarnation or '', key)
		and record and record.epoch == s.epoch and record.counter == s.counter
		and saw_invalidations(s, record) and saw_birth(s, record)
		and memory.incarnations[s.incarnation]
end

-- FCALL uncache_set 1 key snapshot ttl_ms value
-- snapshot: what uncache.snapshot(token) gave, empty for NULL; ttl_ms: > 0.
-- Returns 1 stored, 0 refused.  Errors: ttl_ms not positive; those of SET.
local function uncache_set(keys, args)
	check(#keys == 1 and #args == 3 and args[2]:find('^[1-9]%d*$'))
	local life = may_fill(keys[1], args[1])
	if not life then
		counts.refused = counts.refused + 1
		return 0
	end
	redis.call('SET', keys[1], args[3], 'PX', args[2])
	counts.stored = counts.stored + 1
	life.stored = life.stored + 1
	return 1
end

-- The record after the delivery of an entry, [?]xid.
local function deliver(record, incarnation, entry, ttl)
	local doubt, xid = entry:match('^(%??)(%d+)$')
	check(xid)
	local name = incarnation .. '/' .. xid
	record = record or new_record('')
	record.doubts = doubts_without(record.doubts, name)
	if record.incarnation == incarnation and has(record.xids, xid) then
		return record
	elseif doubt == '?' then
		record.doubts = with(record.doubts, ('%s@%d'):format(name, now() + ttl))
		return record
	end
	local _, commas = record.xids:gsub(',', '')
	if record.xids ~= '' and (record.incarnation ~= incarnation or commas + 1 >= MAX_XIDS) then
		record = new_record(record.doubts)
	end
	record.incarnation, record.xids = incarnation, with(record.xids, xid)
	return record
end

-- FCALL uncache_invalidate n key.. fence_ttl incarnation entry..
-- Deletes the keys' values and adds one entry to each key's record, if there
-- is one.  entry: the xid of a committed transaction, or ?xid for one about to
-- commit (strict): that makes a record where there is none, and is renewed by
-- sending it again.  fence_ttl: ms, > 0.  A key may occur more than once.  Of a superseded
-- incarnation nothing is added: who may fill has not got its transactions.
-- Returns how many values there were.  Errors: UNREGISTERED where
-- uncache_status was not called since the library's memory began (nothing is
-- done); those of UNLINK, GET and SET (some is done; do it again).
local function uncache_invalidate(keys, args)
	local ttl, incarnation = args[1], args[2]
	check(#args == #keys + 2)
	local life = memory.incarnations[incarnation]
	if not life then
		return redis.error_reply('UNREGISTERED incarnation, call uncache_status first')
	end
	local existed = redis.call('UNLINK', unpack(keys))
	for i = 1, #keys do
		local entry, record, name = args[i + 2], load_record(keys[i])
		if (record or (name and entry:find('?', 1, true))) and is_live(incarnation, keys[i]) then
			save_record(name, deliver(record, incarnation, entry, ttl), ttl)
		end
		if entry:find('^%d+$') and before(life.highest, entry) then life.highest = entry end
	end
	return existed
end

-- FCALL uncache_release n key.. incarnation xid..
-- Takes out the doubts of transactions that were rolled back, one a key, where
-- they are.  Returns the number of keys.  Errors: those of GET and SET.
local function uncache_release(keys, args)
	check(#args == #keys + 1)
	for i = 1, #keys do
		local record, name = load_record(keys[i])
		if record then
			record.doubts = doubts_without(record.doubts, args[1] .. '/' .. args[i + 1])
			save_record(name, record)
		end
	end
	return #keys
end

-- ---- lives

local function new_life(server, timeline)
	memory.lives = memory.lives + 1
	return {
		server = server, timeline = timeline,  -- its system identifier; a number
		claim = 0,           -- how often it, or who it comes from, has been reclaimed
		number = memory.lives,
		places = {},         -- name -> {database =, prefix =, claim =, by =}
		by = nil,            -- superseded by {incarnation =, timeline =, claim =}
		seen = 0,            -- when it called last, ms
		stored = 0,          -- fills since it became live, of its readers
		clean = nil,         -- true: those before it had stored nothing when it became live
		wanted = nil,        -- true: refused fills ask for a beat
		xid = '0', beat = nil,  -- its newest beat; the number of that
		highest = '0',       -- of the xids that it has delivered
		next = '0', floor = '0',  -- its next xid, by its last call; by the one before
	}
end

-- The life that can be spared: superseded if there is one, and unheard of for longest.
local function forget_one()
	local spare
	for name, life in pairs(memory.incarnations) do
		local other = spare and memory.incarnations[spare]
		local older = other and (life.seen < other.seen
			or (life.seen == other.seen and life.number < other.number))
		if not other or (life.by and not other.by) or (not life.by == not other.by and older) then
			spare = name
		end
	end
	memory.incarnations[spare] = nil
	memory.forgotten = true
end

local function count(list)
	local n = 0
	for _ in pairs(list) do n = n + 1 end
	return n
end

-- A worker of version 1 does not tell its database: it may be any.
local function same_database(a, b)
	return a.database == b.database or a.database == '' or b.database == ''
end

local function are_rivals(life, other)
	if life.server ~= other.server then return false end
	for _, a in pairs(life.places) do
		for _, b in pairs(other.places) do
			if same_database(a, b) then return true end
		end
	end
	return false
end

local function outranks(a, b)
	return a.claim > b.claim or (a.claim == b.claim and a.timeline > b.timeline)
end

local function supersede(life, incarnation, by)
	life.by = {incarnation = incarnation, timeline = by.timeline, claim = by.claim}
end

-- Two lives of equal rank: the newer replaces the older.  When the older has been told of
-- that and calls again, both live, and nobody knows which is the copy.  The order of calls
-- decides, not a clock, and what a server that has died left under way does not count.
local function meet_equal(name, life, other_name, other, told)
	if other.number < life.number then
		if not other.by then supersede(other, name, life) end
	elseif told == other_name then
		if not other.by then supersede(other, name, life) end
		supersede(life, other_name, other)
	elseif not life.by then
		supersede(life, other_name, other)
	end
end

-- Who may fill, now that this life has called?
local function meet_rivals(name, life, told)
	if life.by and outranks(life, life.by) then life.by = nil end
	for other_name, other in pairs(memory.incarnations) do
		if other_name ~= name and are_rivals(life, other) then
			if outranks(life, other) then
				supersede(other, name, life)
			elseif not outranks(other, life) then
				meet_equal(name, life, other_name, other, told)
			elseif not life.by or outranks(other, life.by) then
				supersede(life, other_name, other)
			end
		end
	end
end

-- Servers with other identifiers, which serve the same keys.
local function meet_strangers(name, life, place)
	if place.by and place.claim > place.by.claim then place.by = nil end
	for other_name, other in pairs(memory.incarnations) do
		for _, there in pairs(other.server ~= life.server and other.places or {}) do
			if there.prefix == place.prefix and same_database(place, there) then
				if there.claim < place.claim then
					there.by = {incarnation = name, claim = place.claim}
				elseif there.claim > place.claim then
					place.by = {incarnation = other_name, claim = there.claim}
				end
			end
		end
	end
end

-- It may fill, and did not before: have its rivals, which are known, stored nothing
-- since the last change?
local function become_live(name, life)
	local rivals, stored = 0, 0
	memory.epoch = nil
	for other_name, other in pairs(memory.incarnations) do
		if other_name ~= name and are_rivals(life, other) then
			rivals, stored, other.stored = rivals + 1, stored + other.stored, 0
		end
	end
	life.stored = 0
	life.clean = rivals > 0 and stored == 0 and not memory.forgotten or nil
end

local function place_of(life, database, prefix)
	local name = database .. '/' .. prefix
	if not life.places[name] then
		if count(life.places) >= MAX_PLACES then life.places = {} end
		life.places[name] = {database = database, prefix = prefix, claim = 0}
	end
	return life.places[name]
end

-- What a server remembers of itself, by its worker: in Redis that may be forgotten.
local function note_own_words(life, place, claim, place_claim, superseded)
	if superseded == 'server' and claim >= life.claim and not life.by then
		life.by = {incarnation = '', timeline = life.timeline, claim = claim}
	elseif superseded == 'place' and place_claim >= place.claim and not place.by then
		place.by = {incarnation = '', claim = place_claim}
	end
	life.claim = math.max(life.claim, claim)
	place.claim = math.max(place.claim, place_claim)
end

-- FCALL uncache_status 0 server timeline incarnation
--     [database prefix claim place_claim superseded told next_xid]
-- The first call of every worker on a connection, before it delivers, and its ping once a
-- second.  server: the system identifier; database: its number in Redis; prefix: of its
-- keys; claim, place_claim: how often the server, the place, has been reclaimed, as far as
-- the worker remembers; superseded: server or place if it remembers that it is, else empty;
-- told: the incarnation by which it was, as the last answer to this worker had it, or
-- empty; next_xid: the next transaction id of its server.  A life that becomes live ends
-- the epoch.
-- Returns [version, epoch, wanted, stored, refused, beats, epochs, superseded, claim,
-- place_claim, clean, by incarnation, by timeline, by claim, by unheard of for ms or -1, by
-- server]: epoch nil where there is none or the caller is superseded; wanted 1 where
-- refused fills ask the caller for a beat; stored to epochs counted since the library's
-- memory began; superseded server, place, or empty, and by whom; clean 1 where those who
-- were superseded by the caller have stored nothing.  Errors: READONLY of a replica.
local function uncache_status(keys, args)
	local id, timeline, incarnation = args[1], tonumber(args[2]), args[3]
	local database, prefix = args[4] or '', args[5] or ''
	local claim, place_claim = tonumber(args[6] or 0), tonumber(args[7] or 0)
	check((#args == 3 or #args >= 10) and timeline and claim and place_claim)
	local life = memory.incarnations[incarnation]
	local was_live, was_shut = life and not life.by, false
	if not life then
		if count(memory.incarnations) >= MAX_LIVES then forget_one() end
		life = new_life(id, timeline)
		memory.incarnations[incarnation] = life
	end
	local place = place_of(life, database, prefix)
	was_shut, life.seen = place.by, now()
	life.floor, life.next = life.next, args[10] or '0'
	note_own_words(life, place, claim, place_claim, args[8] or '')
	meet_rivals(incarnation, life, args[9] or (life.by and life.by.incarnation))
	meet_strangers(incarnation, life, place)
	if not life.by and not was_live then become_live(incarnation, life) end
	if was_shut and not place.by then memory.epoch = nil end

	local by = life.by or place.by
	local other = by and memory.incarnations[by.incarnation]
	return {VERSION, not by and memory.epoch or false, life.wanted and 1 or 0, counts.stored,
		counts.refused, memory.announced, memory.epochs,
		life.by and 'server' or place.by and 'place' or '', life.claim, place.claim,
		life.clean and 1 or 0, by and by.incarnation or '',
		other and other.timeline or by and by.timeline or 0, by and by.claim or 0,
		other and now() - other.seen or -1, other and other.server or ''}
end

-- FCALL uncache_epoch 0 random fence_ttl [incarnation]
-- Sets a new epoch: all tokens handed out before are void.  random: letters and
-- digits, never used before, a different one for every node (records move
-- between the nodes of a Cluster).  Empty: no epoch, every fill is refused.
-- fence_ttl: ms, > 0.  incarnation: of the caller; where that is superseded, or not known,
-- nothing is done.  Returns the epoch, or nil.
local function uncache_epoch(keys, args)
	check(#args >= 2 and args[1]:find('^%w*$') and args[2]:find('^[1-9]%d*$'))
	local life = memory.incarnations[args[3] or '']
	if args[3] and (not life or life.by) then return false end
	memory.epoch, memory.fence_ttl = nil, args[2]
	if args[1] ~= '' then
		memory.epochs = memory.epochs + 1
		memory.epoch = args[1] .. '.' .. memory.epochs
	end
	return memory.epoch or false
end

-- A worker takes its xid, and announces it at once.  So it is not below what was next two
-- calls of uncache_status ago, and not far below what has been delivered.  A prepared
-- transaction may deliver much older ones.
local function is_too_old(life, xid)
	return before(xid, life.floor) or tonumber(life.highest) - tonumber(xid) > BEAT_LAG
end

-- FCALL uncache_beat 0 announce|confirm incarnation xid
-- announce: the transaction xid is in progress; it commits only after every
-- master has answered 1.  confirm: it has committed.  A beat that met any
-- trouble is given up, never sent again.  Returns 1 done; 0 not newer than the
-- incarnation's last one, too old to be in progress, or, to confirm, not that one.
local function uncache_beat(keys, args)
	local step, incarnation, xid = args[1], args[2], args[3]
	check(#args == 3 and xid:find('^%d+$'))
	local life = memory.incarnations[incarnation]
	if step == 'announce' and life and before(life.xid, xid) and not is_too_old(life, xid) then
		memory.announced = memory.announced + 1
		life.xid, life.beat, life.wanted = xid, memory.announced, nil
		memory.beats[life.beat] = {incarnation = incarnation, xid = xid}
		memory.beats[life.beat - MAX_BEATS] = nil
		return 1
	end
	local beat = step == 'confirm' and life and life.xid == xid and memory.beats[life.beat]
	if beat then beat.confirmed = true end
	return beat and 1 or 0
end

-- All run at maxmemory (a delete, and a hit, must always be possible) but for
-- the fill.  None is no-writes: on a replica there are no locals to go by.
local function register(name, callback, flag)
	redis.register_function{function_name = name, callback = callback, flags = {flag}}
end
register('uncache_get', uncache_get, 'allow-oom')
register('uncache_set', uncache_set)
register('uncache_invalidate', uncache_invalidate, 'allow-oom')
register('uncache_release', uncache_release, 'allow-oom')
register('uncache_status', uncache_status, 'allow-oom')
register('uncache_epoch', uncache_epoch, 'allow-oom')
register('uncache_beat', uncache_beat, 'allow-oom')
