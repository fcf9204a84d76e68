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
-- and a promotion.  Without an epoch every fill is refused; a worker sets one
-- on every connection it makes, after sending again what it owes the node.
-- Functions are replicated by their effects, so a replica's locals stay empty.
--
-- The record of key K is a string beside K, in the same Cluster slot:
--   uncache::K     where K has a hash tag   (cart:{42} -> uncache::cart:{42})
--   uncache:{K}    where K has no '}'       (user:42 -> uncache:{user:42})
--   none           for any other K (a}b, the empty key): never filled
-- Text: epoch:counter:beats:incarnation:xid,xid,..:doubts, a doubt being
-- incarnation/xid@deadline.  All plain xids are of one incarnation.
--
-- A reader needs the commands fcall, get, set and time, on its keys and on
-- uncache:*.  Nothing here stops a client that writes these keys itself.
-- xids are 64 bit and stay text: a Lua number is exact to 53 bits only.

local VERSION = 1
local MAX_XIDS = 16      -- in a record; writers of one key between two fills
local MAX_BEATS = 600    -- ten minutes of them: standbys may lag that far

local memory = {
	epoch = nil,         -- text; nil: every fill is refused
	epochs = 0,          -- set so far; part of each epoch, so none comes twice
	counter = 0,         -- records born so far; their names within the epoch
	fence_ttl = nil,     -- ms, of records born on a miss
	incarnations = {},   -- id -> {live =, beat = newest xid announced}
	servers = {},        -- id -> {timeline =, incarnation =}
	announced = 0,       -- beats so far
	beats = {},          -- number -> {incarnation =, xid =, confirmed =}
}
local counts = {stored = 0, refused = 0, wanted = 0, trouble = ''}

local function record_name(key)
	local open = string.find(key, '{', 1, true)
	local close = open and string.find(key, '}', open + 1, true)
	if close and close > open + 1 then
		return 'uncache::' .. key
	elseif key ~= '' and not string.find(key, '}', 1, true) then
		return 'uncache:{' .. key .. '}'
	end
end

local function has(list, item)
	return string.find(',' .. list .. ',', ',' .. item .. ',', 1, true) ~= nil
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
	for doubt, deadline in string.gmatch(doubts, '([^,@]+)@(%d+)') do
		if doubt ~= name and tonumber(deadline) > time then
			kept = with(kept, doubt .. '@' .. deadline)
		end
	end
	return kept
end

-- Returns the record, or nil and, where Redis refuses, its error text.
local function load_record(name)
	local text = redis.pcall('GET', name)
	if type(text) == 'table' then
		return nil, text.err
	end
	local epoch, counter, beats, incarnation, xids, doubts =
		string.match(text or '', '^([^:]*):(%d+):(%d+):([^:]*):([%d,]*):([^:]*)$')
	return epoch and {epoch = epoch, counter = counter, beats = beats,
		incarnation = incarnation, xids = xids, doubts = doubts_without(doubts)}
end

-- Returns nil, or Redis's error text.  ttl nil: the record expires as before.
local function save_record(name, r, ttl)
	local text = table.concat({r.epoch, r.counter, r.beats, r.incarnation, r.xids, r.doubts}, ':')
	local reply = ttl and redis.pcall('SET', name, text, 'PX', ttl)
		or redis.pcall('SET', name, text, 'KEEPTTL')
	return reply.err
end

-- A record without a past: no token and no snapshot of before will do.
local function new_record(doubts)
	memory.counter = memory.counter + 1
	return {epoch = memory.epoch or '', counter = string.format('%d', memory.counter),
		beats = memory.announced, incarnation = '', xids = '', doubts = doubts}
end

local function check(ok)
	if not ok then error({err = 'ERR wrong arguments, see uncache.lua'}) end
end

-- FCALL uncache_get 1 key
-- Returns [value], or on a miss [nil, token]; [nil, nil] where a fill is not
-- possible now.  Errors: WRONGTYPE as GET.
local function uncache_get(keys, args)
	check(#keys == 1 and #args == 0)
	local value = redis.call('GET', keys[1])
	if value then return {value} end

	local name = record_name(keys[1])
	if not (memory.epoch and name) then return {false, false} end
	local record, trouble = load_record(name)
	if not trouble and not (record and record.epoch == memory.epoch) then
		record = new_record(record and record.doubts or '')
		trouble = save_record(name, record, memory.fence_ttl)
	end
	if trouble then
		counts.trouble = trouble
		return {false, false}
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
	counts.wanted = 1
	return false
end

local function saw_invalidations(snapshot, record)
	for xid in string.gmatch(record.xids, '%d+') do
		if not visible(snapshot, record.incarnation, xid) then return false end
	end
	for incarnation, xid in string.gmatch(record.doubts, '([^,/]+)/(%d+)@') do
		if not visible(snapshot, incarnation, xid) then return false end
	end
	return true
end

local function may_fill(key, text)
	local s, name = {}, record_name(key)
	s.epoch, s.counter, s.incarnation, s.fresh, s.xmin, s.xmax, s.xip =
		string.match(text, '^([^:]+):(%d+):([^:]+):([01]):(%d+):(%d+):([%d,]*)$')
	if not (s.epoch and name) or s.epoch ~= memory.epoch then return false end
	local server = memory.incarnations[s.incarnation]
	if not (server and server.live) then return false end
	local record, trouble = load_record(name)
	counts.trouble = trouble or counts.trouble
	return record ~= nil and record.epoch == s.epoch and record.counter == s.counter
		and saw_invalidations(s, record) and saw_birth(s, record)
end

-- FCALL uncache_set 1 key snapshot ttl_ms value
-- snapshot: what uncache.snapshot(token) gave, empty for NULL; ttl_ms: > 0.
-- Returns 1 stored, 0 refused.  Errors: ttl_ms not positive; those of SET.
local function uncache_set(keys, args)
	check(#keys == 1 and #args == 3 and string.find(args[2], '^[1-9]%d*$'))
	if not may_fill(keys[1], args[1]) then
		counts.refused = counts.refused + 1
		return 0
	end
	redis.call('SET', keys[1], args[3], 'PX', args[2])
	counts.stored = counts.stored + 1
	return 1
end

-- The record after the delivery of an entry ([?]xid); nil: there is none.
local function deliver(record, incarnation, entry, ttl)
	local doubt, xid = string.match(entry, '^(%??)(%d+)$')
	local name = incarnation .. '/' .. xid
	if doubt == '' and not record then return nil end
	record = record or new_record('')
	record.doubts = doubts_without(record.doubts, name)
	if record.incarnation == incarnation and has(record.xids, xid) then
		return record
	elseif doubt == '?' then
		record.doubts = with(record.doubts, string.format('%s@%d', name, now() + ttl))
		return record
	end
	local _, commas = string.gsub(record.xids, ',', '')
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
-- Returns a string of one 0 or 1 a key: was there a value?  Errors:
-- UNREGISTERED where uncache_status was not called since the library's memory
-- began (nothing is done); those of UNLINK, GET and SET (some keys are done,
-- and doing them again is harmless).
local function uncache_invalidate(keys, args)
	local ttl, incarnation, existed = args[1], args[2], {}
	check(#args == #keys + 2 and string.find(ttl, '^[1-9]%d*$'))
	if not memory.incarnations[incarnation] then
		return redis.error_reply('UNREGISTERED incarnation, call uncache_status first')
	end
	for i, key in ipairs(keys) do
		local entry, name = args[i + 2], record_name(key)
		check(string.find(entry, '^%??%d+$'))
		existed[i] = redis.call('UNLINK', key)
		local record, trouble
		if name then record, trouble = load_record(name) end
		if name and not trouble then record = deliver(record, incarnation, entry, ttl) end
		if record then trouble = save_record(name, record, ttl) end
		-- something else under the record's name: no fill is possible anyway
		if trouble and not string.find(trouble, '^WRONGTYPE') then
			return redis.error_reply(trouble)
		end
	end
	return table.concat(existed)
end

-- FCALL uncache_release n key.. incarnation xid..
-- Takes out the doubts of transactions that were rolled back, one a key.
-- Returns the number of doubts taken out.  Errors: those of GET and SET.
local function uncache_release(keys, args)
	check(#args == #keys + 1)
	local released = 0
	for i, key in ipairs(keys) do
		local name, record, trouble = record_name(key), nil, nil
		if name then record, trouble = load_record(name) end
		local doubts = record and doubts_without(record.doubts, args[1] .. '/' .. args[i + 1])
		if record and doubts ~= record.doubts then
			record.doubts, released = doubts, released + 1
			trouble = save_record(name, record)
		end
		if trouble then return redis.error_reply(trouble) end
	end
	return released
end

-- FCALL uncache_status 0 server timeline incarnation
-- The first call of every worker on a connection, before it delivers, and its
-- ping once a second.  server: the system identifier; of one server only the
-- incarnation of the highest timeline, and there the last to call, may fill:
-- a primary that was replaced and lives on must not.  One that was not live
-- before ends the epoch.
-- Returns [version, epoch, wanted, stored, refused, beats, trouble]: epoch nil
-- where there is none or the caller is not the live incarnation (then it sets
-- one); wanted 1 where refused fills ask for a beat; stored, refused and beats
-- counted since the library was loaded; trouble: last error met, or empty.
-- A replica answers -READONLY: the connection is to be made anew.
local function uncache_status(keys, args)
	local id, timeline, incarnation = args[1], tonumber(args[2]), args[3]
	check(#args == 3 and timeline)
	local server = memory.servers[id]
	local known = memory.incarnations[incarnation] or {beat = '0', live = false}
	memory.incarnations[incarnation] = known
	if not known.live and (not server or timeline >= server.timeline) then
		if server then memory.incarnations[server.incarnation].live = false end
		memory.servers[id] = {timeline = timeline, incarnation = incarnation}
		known.live, memory.epoch = true, nil
	end
	return {VERSION, known.live and memory.epoch or false, counts.wanted, counts.stored,
		counts.refused, memory.announced, counts.trouble}
end

-- FCALL uncache_epoch 0 random fence_ttl
-- Sets a new epoch: all tokens handed out before are void.  random: letters and
-- digits, never used before, a different one for every node (records move
-- between the nodes of a Cluster).  Empty: no epoch, every fill is refused.
-- fence_ttl: ms, > 0.  Returns the epoch, or nil.
local function uncache_epoch(keys, args)
	check(#args == 2 and string.find(args[1], '^%w*$') and string.find(args[2], '^[1-9]%d*$'))
	memory.epochs = memory.epochs + 1
	memory.epoch = args[1] ~= '' and args[1] .. '.' .. memory.epochs or nil
	memory.fence_ttl = args[2]
	return memory.epoch or false
end

-- FCALL uncache_beat 0 announce|confirm incarnation xid
-- announce: the transaction xid is in progress; it commits only after every
-- master has answered 1.  confirm: it has committed.  A beat that met any
-- trouble is given up, never sent again.
-- Returns 1 done; 0 not a newer xid than the last one, or not announced here.
local function uncache_beat(keys, args)
	local step, incarnation, xid = args[1], args[2], args[3]
	check(#args == 3 and string.find(xid, '^%d+$'))
	local server = memory.incarnations[incarnation]
	if step == 'announce' and server and before(server.beat, xid) then
		server.beat, counts.wanted = xid, 0
		memory.announced = memory.announced + 1
		memory.beats[memory.announced] = {incarnation = incarnation, xid = xid}
		memory.beats[memory.announced - MAX_BEATS] = nil
		return 1
	end
	for _, beat in pairs(step == 'confirm' and memory.beats or {}) do
		if beat.incarnation == incarnation and beat.xid == xid then
			beat.confirmed = true
			return 1
		end
	end
	return 0
end

-- All run at maxmemory (a delete, and a hit, must always be possible) but for
-- the fill.  None is no-writes: on a replica there are no locals to go by.
redis.register_function{function_name = 'uncache_get', callback = uncache_get, flags = {'allow-oom'}}
redis.register_function{function_name = 'uncache_invalidate', callback = uncache_invalidate, flags = {'allow-oom'}}
redis.register_function{function_name = 'uncache_release', callback = uncache_release, flags = {'allow-oom'}}
redis.register_function{function_name = 'uncache_status', callback = uncache_status, flags = {'allow-oom'}}
redis.register_function{function_name = 'uncache_epoch', callback = uncache_epoch, flags = {'allow-oom'}}
redis.register_function{function_name = 'uncache_beat', callback = uncache_beat, flags = {'allow-oom'}}
redis.register_function('uncache_set', uncache_set)
