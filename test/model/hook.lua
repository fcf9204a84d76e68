
-- Appended to the library by the model check, never shipped: one call sets the
-- state of the world (value, record, locals), makes one call of the library and
-- says what the state is then, and whether the call asked for a beat.
local calls = {uncache_get = uncache_get, uncache_token = uncache_token, uncache_set = uncache_set,
	uncache_invalidate = uncache_invalidate, uncache_release = uncache_release,
	uncache_status = uncache_status, uncache_epoch = uncache_epoch, uncache_beat = uncache_beat}

local function thaw(value)
	if type(value) ~= 'table' then return value end
	local copy = {}
	for k, v in pairs(value) do copy[tonumber(k) or k] = thaw(v) end
	return copy
end

local function freeze(value)
	if type(value) ~= 'table' then return cjson.encode(value) end
	local fields = {}
	for k, v in pairs(value) do
		fields[#fields + 1] = '"' .. tostring(k) .. '":' .. freeze(v)
	end
	table.sort(fields)
	return '{' .. table.concat(fields, ',') .. '}'
end

local function put(key, value)
	if value == '' then redis.call('DEL', key) else redis.call('SET', key, value) end
end

local function plain(reply)
	if type(reply) ~= 'table' then return tostring(reply) end
	if reply.err then return reply.err end
	local out = {}
	for i, v in ipairs(reply) do out[i] = v == false and '~' or tostring(v) end
	return table.concat(out, ',')
end

-- model_step 2 key record value record locals function args..
redis.register_function('model_step', function(keys, args)
	put(keys[1], args[1])
	put(keys[2], args[2])
	memory = args[3] ~= '' and thaw(cjson.decode(args[3])) or memory
	local wanted = 0
	for _, incarnation in pairs(memory.incarnations) do incarnation.wanted = nil end
	local reply = ''
	if args[4] then
		local given, own = {}, {}
		for i = 5, #args do given[#given + 1] = args[i] end
		if not string.find('uncache_status uncache_epoch uncache_beat', args[4], 1, true) then
			own[1] = keys[1]
		end
		local ok, result = pcall(calls[args[4]], own, given)
		reply = plain(result)
	end
	-- One call can't tell of the next.
	for _, life in pairs(memory.incarnations) do
		wanted, life.wanted = life.wanted and 1 or wanted, nil
	end
	return table.concat({reply, redis.call('GET', keys[1]) or '',
		redis.call('GET', keys[2]) or '', freeze(memory), wanted}, '\n')
end)
