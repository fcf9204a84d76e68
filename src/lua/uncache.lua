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

local VERSION = 1
local MAX_XIDS = 16      -- in a record; writers of one key between two fills
local MAX_BEATS = 600    -- ten minutes of them: standbys may lag that far

local memory = {
	epoch = nil,         -- text; nil: every fill is refused
	epochs = 0,          -- set so far; part of each epoch, so none comes twice
	counter = 0,         -- records born so far; their names within the epoch
	fence_ttl = nil,     -- ms, of records born on a miss
	servers = {},        -- id -> {timeline =, incarnation = the live one}
	incarnations = {},   -- id -> {live =, wanted = a beat, its newest beat's xid =, number =}
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

local function may_fill(key, text)
	local s, record = {}, load_record(key)
	s.epoch, s.counter, s.incarnation, s.fresh, s.xmin, s.xmax, s.xip =
		text:match('^([^:]+):(%d+):([^:]+):([01]):(%d+):(%d+):([%d,]*)$')
	local server = memory.incarnations[s.incarnation or '']
	return s.epoch == memory.epoch and server and server.live
		and record and record.epoch == s.epoch and record.counter == s.counter
		and saw_invalidations(s, record) and saw_birth(s, record)
end

-- FCALL uncache_set 1 key snapshot ttl_ms value
-- snapshot: what uncache.snapshot(token) gave, empty for NULL; ttl_ms: > 0.
-- Returns 1 stored, 0 refused.  Errors: ttl_ms not positive; those of SET.
local function uncache_set(keys, args)
	check(#keys == 1 and #args == 3 and args[2]:find('^[1-9]%d*$'))
	if not may_fill(keys[1], args[1]) then
		counts.refused = counts.refused + 1
		return 0
	end
	redis.call('SET', keys[1], args[3], 'PX', args[2])
	counts.stored = counts.stored + 1
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
-- sending it again.  fence_ttl: ms, > 0.  A key may occur more than once.
-- Returns how many values there were.  Errors: UNREGISTERED where
-- uncache_status was not called since the library's memory began (nothing is
-- done); those of UNLINK, GET and SET (some is done; do it again).
local function uncache_invalidate(keys, args)
	local ttl, incarnation = args[1], args[2]
	check(#args == #keys + 2)
	if not memory.incarnations[incarnation] then
		return redis.error_reply('UNREGISTERED incarnation, call uncache_status first')
	end
	local existed = redis.call('UNLINK', unpack(keys))
	for i = 1, #keys do
		local entry, record, name = args[i + 2], load_record(keys[i])
		if record or (name and entry:find('?', 1, true)) then
			save_record(name, deliver(record, incarnation, entry, ttl), ttl)
		end
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

-- FCALL uncache_status 0 server timeline incarnation
-- The first call of every worker on a connection, before it delivers, and its
-- ping once a second.  server: the system identifier; of one server only the
-- incarnation of the highest timeline, and there the last to call, may fill:
-- a primary that was replaced and lives on must not.  One that was not live
-- before ends the epoch.
-- Returns [version, epoch, wanted, stored, refused, beats, epochs]:
-- epoch nil where there is none or the caller is not live; wanted 1 where
-- refused fills ask the caller for a beat; the rest counted since the library's
-- memory began.  Errors: READONLY of a replica.
local function uncache_status(keys, args)
	local id, timeline, incarnation = args[1], tonumber(args[2]), args[3]
	check(#args == 3 and timeline)
	local server = memory.servers[id]
	local known = memory.incarnations[incarnation] or {xid = '0', live = false}
	memory.incarnations[incarnation] = known
	if not known.live and (not server or timeline >= server.timeline) then
		if server then memory.incarnations[server.incarnation].live = false end
		memory.servers[id] = {timeline = timeline, incarnation = incarnation}
		known.live, memory.epoch = true, nil
	end
	return {VERSION, known.live and memory.epoch or false, known.wanted and 1 or 0, counts.stored,
		counts.refused, memory.announced, memory.epochs}
end

-- FCALL uncache_epoch 0 random fence_ttl
-- Sets a new epoch: all tokens handed out before are void.  random: letters and
-- digits, never used before, a different one for every node (records move
-- between the nodes of a Cluster).  Empty: no epoch, every fill is refused.
-- fence_ttl: ms, > 0.  Returns the epoch, or nil.
local function uncache_epoch(keys, args)
	check(#args == 2 and args[1]:find('^%w*$') and args[2]:find('^[1-9]%d*$'))
	memory.epoch, memory.fence_ttl = nil, args[2]
	if args[1] ~= '' then
		memory.epochs = memory.epochs + 1
		memory.epoch = args[1] .. '.' .. memory.epochs
	end
	return memory.epoch or false
end

-- FCALL uncache_beat 0 announce|confirm incarnation xid
-- announce: the transaction xid is in progress; it commits only after every
-- master has answered 1.  confirm: it has committed.  A beat that met any
-- trouble is given up, never sent again.  Returns 1 done; 0 not newer than the
-- incarnation's last one, or, to confirm, not that one.
local function uncache_beat(keys, args)
	local step, incarnation, xid = args[1], args[2], args[3]
	check(#args == 3 and xid:find('^%d+$'))
	local server = memory.incarnations[incarnation]
	if step == 'announce' and server and before(server.xid, xid) then
		memory.announced = memory.announced + 1
		server.xid, server.number, server.wanted = xid, memory.announced, nil
		memory.beats[server.number] = {incarnation = incarnation, xid = xid}
		memory.beats[server.number - MAX_BEATS] = nil
		return 1
	end
	local beat = step == 'confirm' and server and server.xid == xid and memory.beats[server.number]
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
