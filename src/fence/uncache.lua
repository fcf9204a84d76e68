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
-- Where information is missing or in doubt, the fill is refused, never the read.
--
-- State that proves something only while this process lives is kept in Lua locals.
-- Locals survive FLUSHALL and are empty after a restart, a reload of the library
-- and, as functions are replicated by their effects, a promotion.  Without an
-- epoch every fill is refused; a worker sets one when it has sent all that it owes.
--
-- The record of key K is a string beside K, in the same Cluster slot:
--   uncache::K     where K has a hash tag   (cart:{42} -> uncache::cart:{42})
--   uncache:{K}    where K has no '}'       (user:42 -> uncache:{user:42})
--   none           for any other K (a}b, the empty key): never filled
-- Text: epoch:counter:beats:incarnation:xid,xid,..:doubts, a doubt being
-- incarnation/xid@deadline.  All plain xids are of one incarnation: one life of
-- one PostgreSQL server.  xids stay text, a Lua number is exact to 53 bits only.
-- While a lease lasts :number@deadline follows; an f before the number says that a fenced
-- fill has stored the value, or may have; only watched records have it.  A library of
-- version 2 does not know these.
--
-- A lease keeps a herd of readers from the database: the first miss takes it, and the others
-- are told to wait for that reader's value.  Its number is in the token of its holder.  It
-- proves nothing and refuses nothing, neither a read nor a fill, so only its length is
-- measured by a clock.
--
-- A record never has more than MAX_RECORD bytes, so the work of a call is linear
-- in its arguments.  A doubt that finds no room is refused, and its transaction
-- fails before it commits.  Where a record must take what it has no room for it
-- is closed instead: its text is then closed@deadline, no fill is stored and no
-- token given until it expires, which is not before the last of its doubts.
-- A record that is longer, whoever wrote it, counts as closed, too.

-- A library serves the workers of all earlier versions: arguments and answers may grow at the
-- end, and an argument that is missing there has the meaning that it had before.  So a worker
-- replaces an older library, and never a newer one.
--
-- A life is a server from one start to the next, named by its incarnation.  Of the lives
-- with one system identifier, at one database of Redis, one may fill: the one with the
-- highest claim (its administrator has said that the others are copies), of these the one
-- on the newest timeline (it was promoted), of these the one that came last (it has been
-- started again).  The others are superseded.  A predecessor that was told of the one that
-- came last, and goes on calling, lives as well; then neither may fill.  Servers with
-- different identifiers all fill, unless one has laid claim to the place, which is a
-- database of Redis with a prefix of keys.

local VERSION = 3
local MAX_XIDS = 64      -- in a record; when it is full old snapshots need a new beat
local MAX_BEATS = 3000   -- ten minutes of them at five a second: standbys may lag that far
local MAX_LIVES = 64     -- a Redis serves some servers; each start of one is a life
local MAX_PLACES = 256   -- of a life: it has at most 128 workers, with some targets each
local BEAT_LAG = 10000   -- xids that are given away while an announcement is on its way
local MAX_RECORD = 4096  -- bytes, some 75 doubts: strict writers of one key at once
local MAX_KEYS = 5000    -- of a call; unpack() takes no more than some 8,000
local MAX_LEASE = 60000  -- ms; so long the others wait for a reader that has died
local WATCHED = 8        -- of so many records one finds out whether values are stored plainly
local MAX_SHOWN = 40     -- bytes of a wrong argument that its error repeats
local CLOSED = 'closed@'

local memory = {
	epoch = nil,         -- text; nil: every fill is refused
	epochs = 0,          -- set so far; part of each epoch, so none comes twice in a life
	counter = 0,         -- records born so far; their names within the epoch
	fence_ttl = nil,     -- ms, of records born on a miss
	incarnations = {},   -- id -> life, see new_life()
	leases = 0,          -- taken so far; their numbers
	lives = 0,           -- so far; part of each life, so that it is known which came last
	announced = 0,       -- beats so far, of all incarnations
	beats = {},          -- number -> {incarnation =, xid =, confirmed =}
}
-- checked, found_stale: hits that readers have compared with the database, and how many of
-- these were older.  plain: values found under watched keys that no fenced fill has stored.
local counts = {stored = 0, refused = 0, checked = 0, found_stale = 0, plain = 0}

-- The error for a wrong argument: the rule for it, and the text that was given.
local function wrong(name, rule, got)
	local shown = got:sub(1, MAX_SHOWN):gsub('[^ -~]', '?')
	return redis.error_reply(("ERR %s: %s, got '%s%s'"):format(
		name, rule, shown, #got > MAX_SHOWN and '...' or ''))
end

local function wrong_count(name, takes, keys, args)
	return redis.error_reply(('ERR %s: takes %s, got %d key%s and %d argument%s'):format(
		name, takes, #keys, #keys == 1 and '' or 's', #args, #args == 1 and '' or 's'))
end

-- Returns nil if the text is right, else the error; more than 15 digits are no 64-bit time.
local function wrong_ms(name, argument, text)
	if text:find('^[1-9]%d*$') and #text <= 15 then return nil end
	return wrong(name, argument .. ' must be a positive whole number of milliseconds'
		.. (#text > 15 and ' of at most 15 digits' or ''), text)
end

-- Returns the error for a wrong lease_ms; nil if it is right, or not given.
local function wrong_lease(name, text)
	if not text or (text:find('^[1-9]%d*$') and #text <= 5 and tonumber(text) <= MAX_LEASE) then
		return nil
	end
	return wrong(name, ('lease_ms must be a whole number of milliseconds from 1 to %d'):format(
		MAX_LEASE), text)
end

local function is_xid(text)
	return #text <= 20 and text:find('^[1-9]%d*$')
end

local function record_name(key)
	if key ~= '' and not key:find('}', 1, true) then return 'uncache:{' .. key .. '}' end
	local open = key:find('{', 1, true)
	local close = open and key:find('}', open, true)
	if close and close > open + 1 then return 'uncache::' .. key end
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

-- Is the transaction one of those that run in the eyes of the snapshot?  Its list
-- may be long, and is asked for many: it becomes a set when it is asked first.
local function runs(snapshot, xid)
	if not snapshot.running then
		snapshot.running = {}
		for running in snapshot.xip:gmatch('%d+') do snapshot.running[running] = true end
	end
	return snapshot.running[xid]
end

-- Has the transaction ended, in the eyes of the snapshot?
local function visible(snapshot, incarnation, xid)
	return incarnation == snapshot.incarnation
		and (before(xid, snapshot.xmin)
			or (before(xid, snapshot.xmax) and not runs(snapshot, xid)))
end

local function now()
	local time = redis.call('TIME')
	return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- Text of this microsecond.  It is part of each epoch, as nothing else is known after a
-- restart of Redis that was not known before: uncache_epoch may then arrive a second time
-- and find all counters where the first one found them.
local function moment()
	local time = redis.call('TIME')
	return ('%x%05x'):format(time[1], time[2])
end

-- Returns the list of doubts without the named one (name may be nil), and without those that
-- have expired: their server is gone, or has forgotten the transaction, and renews them no more.
local function doubts_without(doubts, name)
	local kept, time = {}, doubts ~= '' and now()
	for doubt in doubts:gmatch('[^,]+') do
		local of, deadline = doubt:match('^([^@]+)@(%d+)$')
		if of and of ~= name and tonumber(deadline) > time then kept[#kept + 1] = doubt end
	end
	return table.concat(kept, ',')
end

local function last_deadline(text)
	local last = 0
	for deadline in text:gmatch('@(%d+)') do last = math.max(last, tonumber(deadline)) end
	return last
end

-- Returns the key's record, or nil, and the record's name, nil where it can't
-- have one, as the key has no such name or another type of value has it.  A closed record
-- is neither: the third result is its name, the fourth its text.
local function load_record(key)
	local name = record_name(key)
	local text = name and redis.pcall('GET', name)
	if not text then return nil, name end
	if text.err and text.err:find('^WRONGTYPE') then return nil end
	if text.err then error(text) end
	if #text > MAX_RECORD or text:find(CLOSED, 1, true) == 1 then
		return nil, nil, name, text
	end
	local r = {}
	r.epoch, r.counter, r.beats, r.incarnation, r.xids, r.doubts, r.filled, r.lease = text:match(
		'^([^:]*):(%d+):(%d+):([^:]*):([%d,]*):([^:]*):?(f?)([%d@]*)$')
	return r.epoch and r, name
end

-- text: the record as it was
local function close_record(name, text, ttl)
	local deadline = math.max(last_deadline(text), now() + ttl)
	redis.call('SET', name, ('%s%d'):format(CLOSED, deadline), 'PX', deadline - now())
end

local function text_of(r)
	return table.concat({r.epoch, r.counter, r.beats, r.incarnation, r.xids, r.doubts,
		r.filled .. r.lease ~= '' and r.filled .. r.lease or nil}, ':')
end

-- With a ttl of nil the record expires as before.  It does not expire before its doubts, since
-- the caller may have a shorter fence_ttl than the server that renews them.
local function save_record(name, r, ttl)
	local text = text_of(r)
	if ttl and #text > MAX_RECORD then return close_record(name, text, ttl) end
	if ttl and r.doubts ~= '' then ttl = math.max(ttl, last_deadline(r.doubts) - now()) end
	redis.call('SET', name, text, unpack(ttl and {'PX', ttl} or {'KEEPTTL'}))
end

-- A record without a past: no token and no snapshot of before will do.
local function new_record(doubts)
	memory.counter = memory.counter + 1
	return {epoch = memory.epoch or '', counter = ('%d'):format(memory.counter),
		beats = memory.announced, incarnation = '', xids = '', doubts = doubts,
		filled = '', lease = ''}
end

-- Returns how long the record's lease will last, ms; 0: there is none.  A lease that would last
-- longer than any was given before the clock was set back: it has ended.
local function lease_left(record)
	local deadline = record.lease:match('@(%d+)$')
	local left = deadline and tonumber(deadline) - now() or 0
	return left > 0 and left <= MAX_LEASE and left or 0
end

-- Gives the record a lease, unless it has no room for one; returns the lease's number, or nil.
local function take_lease(record, ms)
	local lease = ('%d@%d'):format(memory.leases + 1, now() + ms)
	if #text_of(record) + #':' + #lease > MAX_RECORD then return nil end
	memory.leases, record.lease = memory.leases + 1, lease
	return memory.leases
end

-- A watched record notes that it was filled, so a value without that note was stored by SET.
local function is_watched(record)
	return record.epoch == memory.epoch and tonumber(record.counter) % WATCHED == 0
end

-- Returns the token of the key's record, which is made where there is none of this epoch;
-- false where a fill is not possible now.  has_value: there may be a value that was stored
-- before the record was made.  With lease_ms the token takes the record's lease;
-- where another reader has that: false, and for how long, ms.
local function token_of(key, lease_ms, has_value)
	local record, name = load_record(key)
	if not (memory.epoch and name) then return false end
	local is_new = not (record and record.epoch == memory.epoch)
	if is_new then
		record = new_record(record and doubts_without(record.doubts) or '')
		record.filled = has_value and is_watched(record) and 'f' or ''
	end
	local left = lease_ms and lease_left(record) or 0
	if left > 0 then return false, left end
	local lease = lease_ms and take_lease(record, lease_ms)
	if is_new then
		save_record(name, record, memory.fence_ttl)
	elseif lease then
		save_record(name, record)
	end
	return record.epoch .. (lease and ('.l%d'):format(lease) or '') .. ':' .. record.counter
end

-- FCALL uncache_get 1 key [lease_ms]
-- lease_ms: 1 to 60000; the first reader that misses fills the key, and the others that ask
-- for a lease are told to wait, at most as long as this.
-- Returns [value]; or on a miss [nil, token]; or [nil, nil, wait_ms] where another reader has
-- the lease: ask again within wait_ms, or read the database and store nothing; [nil, nil]
-- where a fill is not possible now.  Errors: lease_ms; those of GET.
local function uncache_get(keys, args)
	if #keys ~= 1 or #args > 1 then
		return wrong_count('uncache_get', '1 key and at most lease_ms', keys, args)
	end
	local refused = wrong_lease('uncache_get', args[1])
	if refused then return refused end
	local value = redis.call('GET', keys[1])
	if value then return {value} end
	local token, wait = token_of(keys[1], args[1])
	return {false, token, wait}
end

-- FCALL uncache_token 1 key [lease_ms]
-- For a fill although there is a value, or may be: to refresh it before it
-- expires, or in place of one that can't be decoded.
-- Returns a token as uncache_get does on a miss; [nil, nil, wait_ms] where another reader has
-- the lease that is asked for; nil where a fill is not possible now.  Errors: lease_ms; those
-- of GET.
local function uncache_token(keys, args)
	if #keys ~= 1 or #args > 1 then
		return wrong_count('uncache_token', '1 key and at most lease_ms', keys, args)
	end
	local refused = wrong_lease('uncache_token', args[1])
	if refused then return refused end
	local token, wait = token_of(keys[1], args[1], true)
	return wait and {false, false, wait} or token
end

-- Has the snapshot seen all that was delivered before the record's birth?  Every snapshot that
-- sees a later beat sees the first one after the birth, so that one decides.
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

-- Whether no other server keeps readers of the incarnation from filling the key.
local function is_live(incarnation, key)
	local life = memory.incarnations[incarnation]
	if not life or life.by then return false end
	for _, place in pairs(life.places) do
		if place.by and key:sub(1, #place.prefix) == place.prefix then return false end
	end
	return true
end

-- The parts of what uncache.snapshot(token) gave.  Of a token alone: epoch, counter, lease.
local function parse_snapshot(text)
	local s = {lease = ''}
	s.epoch, s.counter = text:match('^([^:]+):(%d+)')
	if not s.counter then return s end
	local epoch, lease = s.epoch:match('^(.*)%.l(%d+)$')
	if epoch then s.epoch, s.lease = epoch, lease end
	s.incarnation, s.fresh, s.xmin, s.xmax, s.xip =
		text:match('^[^:]+:%d+:([^:]+):([01]):(%d+):(%d+):([%d,]*)$')
	return s
end

-- Returns the life whose reader it is, or nothing.
local function may_fill(key, s, record)
	return s.incarnation and s.epoch == memory.epoch and is_live(s.incarnation, key)
		and record and record.epoch == s.epoch and record.counter == s.counter
		and saw_invalidations(s, record) and saw_birth(s, record)
		and memory.incarnations[s.incarnation]
end

-- The life's readers have stored something.  Another life of its server that takes the fence
-- back finds that in the cache, so it is not clean any more.
local function note_stored(life)
	if life.stored then return end
	life.stored = true
	for _, other in pairs(memory.incarnations) do
		if other ~= life and other.server == life.server and other.clean then
			other.clean = false
		end
	end
end

-- The holder of the lease has answered, whatever became of its fill.  An empty snapshot has
-- no token in it, so it ends the lease of whoever has it: that costs one more query, at most.
local function end_lease(name, record, s, is_empty)
	if not record or record.lease == '' then return end
	local is_holder = s.epoch == record.epoch and s.counter == record.counter
		and record.lease:match('^%d+') == s.lease
	if not (is_holder or is_empty) then return end
	record.lease = ''
	save_record(name, record)
end

-- FCALL uncache_set 1 key snapshot ttl_ms value
-- snapshot: what uncache.snapshot(token) gave, empty for NULL; ttl_ms: > 0.  A reader that
-- holds the lease and will not store gives its token, or an empty text, for the snapshot.
-- Returns 1 stored, 0 refused.  Errors: ttl_ms not positive; those of SET.
local function uncache_set(keys, args)
	if #keys ~= 1 or #args ~= 3 then
		return wrong_count('uncache_set', '1 key, snapshot, ttl_ms and value', keys, args)
	end
	local wrong_ttl = wrong_ms('uncache_set', 'ttl_ms', args[2])
	if wrong_ttl then return wrong_ttl end
	local snapshot, record, name = parse_snapshot(args[1]), load_record(keys[1])
	local life = may_fill(keys[1], snapshot, record)
	end_lease(name, record, snapshot, args[1] == '')
	if not life then
		counts.refused = counts.refused + 1
		return 0
	end
	if is_watched(record) and record.filled == '' then
		counts.plain = counts.plain + redis.call('EXISTS', keys[1])
		record.filled = 'f'
		save_record(name, record)
	end
	redis.call('SET', keys[1], args[3], 'PX', args[2])
	counts.stored = counts.stored + 1
	note_stored(life)
	return 1
end

-- Adds an entry to the key's record.  mark: '' delivered, '?' in doubt, '!' in doubt still;
-- existed: there was a value.  Returns false if the record has no room for one more doubt.
local function note(key, incarnation, mark, xid, ttl, existed)
	local record, name, closed, text = load_record(key)
	if closed and mark == '!' then close_record(closed, text, ttl) end
	if closed then return mark ~= '?' end
	if not (record or (name and mark ~= '')) then return true end

	if record and existed and is_watched(record) and record.filled == '' then
		counts.plain = counts.plain + 1
	end
	record = record or new_record('')
	record.filled, record.lease = '', ''
	local doubt = incarnation .. '/' .. xid
	record.doubts = doubts_without(record.doubts, doubt)
	local known = record.incarnation == incarnation and has(record.xids, xid)
	if mark ~= '' and not known then
		record.doubts = with(record.doubts, ('%s@%d'):format(doubt, now() + ttl))
	elseif not known then
		local _, commas = record.xids:gsub(',', '')
		if record.xids ~= '' and (record.incarnation ~= incarnation or commas + 1 >= MAX_XIDS) then
			record = new_record(record.doubts)
		end
		record.incarnation, record.xids = incarnation, with(record.xids, xid)
		-- Born again without a past it need not know what is delivered already.
		if #text_of(record) > MAX_RECORD then record = new_record(record.doubts) end
	end
	if mark == '?' and #text_of(record) > MAX_RECORD then return false end
	save_record(name, record, ttl)
	return true
end

local function take_out(key, doubt)
	local record, name = load_record(key)
	if record and record.doubts ~= '' then
		record.doubts = doubts_without(record.doubts, doubt)
		save_record(name, record)
	end
end

-- Returns the error for a wrong call of uncache_invalidate, or nil.
local function wrong_entries(keys, args)
	local name = 'uncache_invalidate'
	if #keys == 0 or #keys > MAX_KEYS or #args ~= #keys + 2 then
		return wrong_count(name,
			'1 to ' .. MAX_KEYS .. ' keys, fence_ttl, incarnation and one entry for each key',
			keys, args)
	end
	for i = 3, #args do
		if #args[i] > 21 or not args[i]:find('^[?!]?[1-9]%d*$') then
			return wrong(name, 'an entry must be a transaction id, after ? or ! if it is in doubt',
				args[i])
		end
	end
	return wrong_ms(name, 'fence_ttl', args[1])
end

-- FCALL uncache_invalidate n key.. fence_ttl incarnation entry..
-- Deletes the keys' values and adds one entry to each key's record, if there
-- is one.  entry: the xid of a committed transaction; ?xid for one about to
-- commit (strict): that makes a record where there is none; !xid to renew that,
-- as long as the transaction may commit or is not delivered.  fence_ttl: ms, > 0.
-- A key may occur more than once.  Nothing is added for a superseded incarnation, as the
-- server that fills instead does not have its transactions.  So its ?xid is refused: if it got
-- the fence back before the transaction is delivered, nothing would keep old values out.
-- Returns how many values there were.  Errors: UNREGISTERED where
-- uncache_status was not called since the library's memory began (nothing is
-- done); FULL where a record has no room for a ?xid (all else is done; the
-- transaction must not commit); SUPERSEDED, likewise, to a ?xid; those of UNLINK, GET
-- and SET (some is done; do it again).
local function uncache_invalidate(keys, args)
	local refused = wrong_entries(keys, args)
	if refused then return refused end
	local ttl, incarnation = args[1], args[2]
	local life = memory.incarnations[incarnation]
	if not life then
		return redis.error_reply('UNREGISTERED incarnation, call uncache_status first')
	end
	local existed, room, live = redis.call('UNLINK', unpack(keys)), true, true
	for i = 1, #keys do
		local entry = args[i + 2]
		local mark = entry:match('^[?!]') or ''
		local xid = mark == '' and entry or entry:sub(2)
		if is_live(incarnation, keys[i]) then
			room = note(keys[i], incarnation, mark, xid, ttl, existed == #keys) and room
		elseif mark == '' then
			take_out(keys[i], incarnation .. '/' .. xid)
		elseif mark == '?' then
			live = false
		end
		if mark == '' and before(life.highest, xid) then life.highest = xid end
	end
	if not live then return redis.error_reply('SUPERSEDED another server fills these keys') end
	return room and existed or redis.error_reply(
		'FULL too many strict transactions are about to commit changes of one key')
end

-- FCALL uncache_release n key.. incarnation xid..
-- Takes out the doubts of transactions that were rolled back, one a key, where
-- they are.  Returns the number of keys.  Errors: those of GET and SET.
local function uncache_release(keys, args)
	if #args ~= #keys + 1 then
		return wrong_count('uncache_release', 'keys, incarnation and one xid for each key',
			keys, args)
	end
	for i = 1, #keys do take_out(keys[i], args[1] .. '/' .. args[i + 1]) end
	return #keys
end

-- ---- lives

local function new_life(server, timeline)
	memory.lives = memory.lives + 1
	return {
		server = server, timeline = timeline,  -- its system identifier; a number
		claim = 0,           -- how often it, or the server it is a copy of, was reclaimed
		number = memory.lives,
		places = {},         -- name -> {database =, prefix =, claim =, by =}
		by = nil,            -- superseded by {incarnation =, timeline =, claim =}
		seen = 0,            -- when it called last, ms
		stored = nil,        -- true: its readers have stored something, since any was superseded
		clean = nil,         -- since it was superseded for the first time no other has stored
		                     -- anything; nil: it was not; false: some has, or that is not known
		wanted = nil,        -- true: refused fills ask for a beat
		xid = '0', beat = nil,  -- its newest beat; the number of that
		highest = '0',       -- of the xids that it has delivered
		next = '0',          -- its next xid, by its last call
		floor = '0',         -- ... by the call before that, or by the only one
	}
end

-- Forgets a superseded life, if there is one; of these, or of all, the one that called longest
-- ago.
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

-- All lives but the named one, as {name =, life =}: the highest rank first, of equal rank
-- those that are not superseded, of these the newest.  pairs() has an order of its own, on
-- which nothing that a worker is told may depend.
local function others_of(name)
	local others = {}
	for other_name, other in pairs(memory.incarnations) do
		if other_name ~= name then others[#others + 1] = {name = other_name, life = other} end
	end
	table.sort(others, function(a, b)
		local one, two = a.life, b.life
		if outranks(one, two) or outranks(two, one) then return outranks(one, two) end
		if not one.by ~= not two.by then return not one.by end
		return one.number > two.number
	end)
	return others
end

local function supersede(life, incarnation, by)
	if not life.by then
		if life.clean == nil then life.clean = true end
		for _, other in pairs(memory.incarnations) do other.stored = nil end
	end
	life.by = {incarnation = incarnation, timeline = by.timeline, claim = by.claim}
end

-- Two lives of equal rank: the newer replaces the older.  When the older has been told of
-- that and calls again, both live, and nothing tells which is the copy.  The order of calls
-- decides, not a clock, and what a server that has died left under way does not count.
local function meet_equal(name, life, other_name, other, told)
	if other.number < life.number then
		if not other.by then supersede(other, name, life) end
	elseif told == other_name then
		if not other.by then supersede(other, name, life) end
		if not (life.by and outranks(life.by, other)) then supersede(life, other_name, other) end
	elseif not life.by then
		supersede(life, other_name, other)
	end
end

-- Which lives may fill, now that this one has called?
local function meet_rivals(name, life, told)
	if life.by and outranks(life, life.by) then life.by = nil end
	local outranked = false
	for _, entry in ipairs(others_of(name)) do
		local other_name, other = entry.name, entry.life
		if are_rivals(life, other) then
			if outranks(life, other) then
				-- The highest that has called supersedes it.
				if not (other.by and outranks(other.by, life)) then supersede(other, name, life) end
			elseif not outranks(other, life) then
				meet_equal(name, life, other_name, other, told)
			elseif not outranked then
				-- The highest of all, unless a higher one has been forgotten since.
				outranked = true
				if not (life.by and outranks(life.by, other)) then
					supersede(life, other_name, other)
				end
			end
		end
	end
end

-- Servers with other identifiers, which serve the same keys.
local function meet_strangers(name, life, place)
	if place.by and place.claim > place.by.claim then place.by = nil end
	local highest
	for _, entry in ipairs(others_of(name)) do
		for _, there in pairs(entry.life.server ~= life.server and entry.life.places or {}) do
			if there.prefix == place.prefix and same_database(place, there) then
				if there.claim < place.claim then
					if not (there.by and there.by.claim > place.claim) then
						there.by = {incarnation = name, claim = place.claim}
					end
				elseif there.claim > (highest and highest.claim or place.claim) then
					highest = {incarnation = entry.name, claim = there.claim}
				end
			end
		end
	end
	if highest and not (place.by and place.by.claim > highest.claim) then place.by = highest end
end

local function place_of(life, database, prefix)
	local name = database .. '/' .. prefix
	if not life.places[name] then
		if count(life.places) >= MAX_PLACES then life.places = {} end
		life.places[name] = {database = database, prefix = prefix, claim = 0}
	end
	return life.places[name]
end

-- Takes over what the worker says of its own server, as Redis may have forgotten it.
local function note_own_words(life, place, claim, place_claim, superseded)
	if superseded == 'server' and claim >= life.claim and not life.by then
		life.by = {incarnation = '', timeline = life.timeline, claim = claim}
	elseif superseded == 'place' and place_claim >= place.claim and not place.by then
		place.by = {incarnation = '', claim = place_claim}
	end
	life.claim = math.max(life.claim, claim)
	place.claim = math.max(place.claim, place_claim)
end

-- Returns the error for a wrong call of uncache_status, or nil.
local function wrong_status(keys, args)
	local name, numbers = 'uncache_status', {{'timeline', 2}, {'claim', 6}, {'place_claim', 7}}
	if #keys ~= 0 or #args < 3 or (#args > 3 and #args < 10) then
		return wrong_count(name,
			'no keys, server, timeline and incarnation, or these with database, '
			.. 'prefix, claim, place_claim, superseded, told and next_xid', keys, args)
	end
	for _, number in ipairs(numbers) do
		local argument, i = unpack(number)
		if args[i] and not (args[i]:find('^%d+$') and #args[i] <= 10) then
			return wrong(name, argument .. ' must be a whole number of at most 10 digits', args[i])
		end
	end
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
-- server, checked, found stale, plain]: epoch nil where there is none or the caller is superseded;
-- wanted 1 where refused fills ask the caller for a beat; stored to epochs, and the last three,
-- counted since the library's memory began; superseded server, place, or empty, and by whom;
-- clean 1 where the caller was superseded and is not, and no other has stored anything
-- meanwhile.  Errors: READONLY of a replica.
local function uncache_status(keys, args)
	local refused = wrong_status(keys, args)
	if refused then return refused end
	local id, timeline, incarnation = args[1], tonumber(args[2]), args[3]
	local database, prefix = args[4] or '', args[5] or ''
	local claim, place_claim = tonumber(args[6] or 0), tonumber(args[7] or 0)
	local life = memory.incarnations[incarnation]
	local is_new, was_live, was_shut = not life, life and not life.by, false
	if is_new then
		if count(memory.incarnations) >= MAX_LIVES then forget_one() end
		life = new_life(id, timeline)
		memory.incarnations[incarnation] = life
	end
	local place = place_of(life, database, prefix)
	was_shut, life.seen = place.by, now()
	life.floor = is_new and (args[10] or '0') or life.next
	life.next = args[10] or '0'
	note_own_words(life, place, claim, place_claim, args[8] or '')
	meet_rivals(incarnation, life, args[9] or (life.by and life.by.incarnation))
	meet_strangers(incarnation, life, place)
	-- It may have been superseded before Redis forgot; others may have stored something since.
	if is_new and life.by then life.clean = false end
	if not life.by and not was_live then memory.epoch = nil end
	if was_shut and not place.by then memory.epoch = nil end

	local by = life.by or place.by
	local other = by and memory.incarnations[by.incarnation]
	return {VERSION, not by and memory.epoch or false, life.wanted and 1 or 0, counts.stored,
		counts.refused, memory.announced, memory.epochs,
		life.by and 'server' or place.by and 'place' or '', life.claim, place.claim,
		life.clean and not by and 1 or 0, by and by.incarnation or '',
		other and other.timeline or by and by.timeline or 0, by and by.claim or 0,
		other and now() - other.seen or -1, other and other.server or '',
		counts.checked, counts.found_stale, counts.plain}
end

-- FCALL uncache_report 0 checked n stale m
-- A reader has compared n hits with the database; m of them were older.  The workers show the
-- sums in uncache.stat.  Returns OK.  Errors: n and m must be whole numbers, m not above n.
local function uncache_report(keys, args)
	local name = 'uncache_report'
	if #keys ~= 0 or #args ~= 4 or args[1] ~= 'checked' or args[3] ~= 'stale' then
		return wrong_count(name, 'no keys, checked, a number, stale and a number', keys, args)
	end
	for i = 2, 4, 2 do
		if not (args[i]:find('^%d+$') and #args[i] <= 10) then
			return wrong(name, args[i - 1] .. ' must be a whole number of at most 10 digits',
				args[i])
		end
	end
	if tonumber(args[4]) > tonumber(args[2]) then
		return wrong(name, 'stale must not be more than checked', args[4])
	end
	counts.checked = counts.checked + tonumber(args[2])
	counts.found_stale = counts.found_stale + tonumber(args[4])
	return redis.status_reply('OK')
end

-- FCALL uncache_epoch 0 random fence_ttl [incarnation]
-- Sets a new epoch: all tokens handed out before are void.  random: letters and
-- digits, never used before, a different one for every node (records move
-- between the nodes of a Cluster).  Empty: no epoch, every fill is refused.
-- fence_ttl: ms, > 0.  incarnation: of the caller; where that is superseded, or not known,
-- nothing is done.  Returns the epoch, or nil.
local function uncache_epoch(keys, args)
	if #keys ~= 0 or #args < 2 then
		return wrong_count('uncache_epoch', 'no keys, random, fence_ttl and incarnation',
			keys, args)
	end
	if not args[1]:find('^%w*$') then
		return wrong('uncache_epoch', 'random must be letters and digits', args[1])
	end
	local wrong_ttl = wrong_ms('uncache_epoch', 'fence_ttl', args[2])
	if wrong_ttl then return wrong_ttl end
	local life = memory.incarnations[args[3] or '']
	if args[3] and (not life or life.by) then return false end
	memory.epoch, memory.fence_ttl = nil, args[2]
	if args[1] ~= '' then
		memory.epochs = memory.epochs + 1
		memory.epoch = ('%s.%d.%s'):format(args[1], memory.epochs, moment())
	end
	return memory.epoch or false
end

-- A worker takes its xid, and announces it at once.  So it is not below what was next two
-- calls of uncache_status ago, or at the first call, and not far below what has been
-- delivered.  A prepared transaction may deliver much older ones.
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
	if #keys ~= 0 or #args ~= 3 then
		return wrong_count('uncache_beat', 'no keys, step, incarnation and xid', keys, args)
	end
	if step ~= 'announce' and step ~= 'confirm' then
		return wrong('uncache_beat', 'step must be announce or confirm', step)
	end
	if not is_xid(xid) then return wrong('uncache_beat', 'xid must be a transaction id', xid) end
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

-- All functions but the fill run at maxmemory, since a delete, and a hit, must always be
-- possible.  None is no-writes, since the locals of a replica know nothing.
local function register(name, callback, flag)
	redis.register_function{function_name = name, callback = callback, flags = {flag}}
end
register('uncache_get', uncache_get, 'allow-oom')
register('uncache_token', uncache_token, 'allow-oom')
register('uncache_set', uncache_set)
register('uncache_invalidate', uncache_invalidate, 'allow-oom')
register('uncache_release', uncache_release, 'allow-oom')
register('uncache_status', uncache_status, 'allow-oom')
register('uncache_epoch', uncache_epoch, 'allow-oom')
register('uncache_beat', uncache_beat, 'allow-oom')
register('uncache_report', uncache_report, 'allow-oom')
