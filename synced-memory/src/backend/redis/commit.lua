-- Makes attempts to write keys, each by the rule of commit.rs, in one atomic step.
--
-- KEYS: for each attempt the key and its sidecar, a hash of
--         deleted    the stamp of the last delete: the tombstone
--         <writer>   "<last sequence number> <when> <until>": what was decided on last, when that was, and until
--                    when the sidecar is kept at least, in seconds since 1970; a "-" behind the number says that
--                    it was refused
--         horizon    records of until then may have been dropped, in seconds since 1970
--         waiting    "<writer> <when>": who was refused first and waits for its turn, and when it last tried
-- ARGV: the sidecars' time to live in ms, the time in seconds since 1970, how many records a sidecar has at most,
--         then for each attempt
--         writer, sequence number, stamp,
--         "delete", or to store: "keep" (the time to live), "never" (to end) or the time to live in ms,
--         the envelope,
--         where an earlier attempt is in doubt, how many seconds ago the first one was, else "",
--         what is expected: "" anything, "absent", "nothing" (refuse in any case), "<length> <stamp>", or
--         "=" and the bytes
-- Returns for each attempt
--         {1, existed, waiting}    applied; and which other writer was refused before, and waits for its turn
--         {2, stored, tombstone}   applied by an earlier attempt
--         {3, stored, tombstone}   refused: as new or newer, or not what was expected
--         {4, stored, tombstone}   whether it was applied by an earlier attempt is forgotten
--         {0, message}             the server's own refusal
--
-- The value is never decoded: its stamp is in the last bytes. Stamps and sequence numbers compare as
-- decimal strings, since Lua numbers cannot hold them. Valid in Lua 5.1 and 5.4.

local lifetime, now, most = tonumber(ARGV[1]), ARGV[2], tonumber(ARGV[3])
local needed = now + lifetime / 1000
local LARGEST = '4611686018427387904' -- 2^62: a larger stamp counts as 0
local TAIL = 64
local PATIENCE = 2

local function above(a, b)
  if #a ~= #b then return #a > #b end
  return a > b
end

local function stamp_of(tail)
  local stamp = string.match(tail, '"last_modified":%s*(%d+)%s*}%s*$')
  stamp = stamp and string.gsub(stamp, '^0+', '') or ''
  if stamp == '' or above(stamp, LARGEST) then return '0' end
  return stamp
end

local function refusal(answer)
  return type(answer) == 'table' and answer.err
end

-- Drops the older half of the records, where there are too many. A server that refuses that keeps them.
local function prune(sidecar, writer)
  local held = redis.pcall('HLEN', sidecar)
  if refusal(held) or held <= most then return end
  local all, times = redis.pcall('HGETALL', sidecar), {}
  if refusal(all) then return end
  local function when(i) return tonumber((string.match(all[i + 1], '^%d+%-? (%d+) %d+$'))) end
  for i = 1, #all, 2 do
    if when(i) then times[#times + 1] = when(i) end
  end
  if #times == 0 then return end
  table.sort(times)
  local horizon = times[math.floor((#times + 1) / 2)]
  if refusal(redis.pcall('HSET', sidecar, 'horizon', string.format('%.0f', horizon))) then return end
  for i = 1, #all, 2 do
    if when(i) and when(i) <= horizon and all[i] ~= writer then redis.pcall('HDEL', sidecar, all[i]) end
  end
end

-- Records that the writer's attempt was decided on; returns the server's refusal, if it refuses that.
-- `ends`: when the sidecar expires at the earliest, as the writer's record before says.
local function record(sidecar, writer, note, ends)
  note = note .. ' ' .. now .. ' '
  if ends and tonumber(ends) >= needed then return refusal(redis.pcall('HSET', sidecar, writer, note .. ends)) end
  local left = redis.pcall('PTTL', sidecar)
  if refusal(left) then return left.err end
  -- A tenth more than asked for, so that not every write has to set it. Never less than it is.
  local longer = math.max(left, lifetime * 1.1)
  note = note .. string.format('%.0f', math.floor(now + longer / 1000))
  local refused = refusal(redis.pcall('HSET', sidecar, writer, note))
  if not refused and not ends then prune(sidecar, writer) end
  return refused or refusal(redis.pcall('PEXPIRE', sidecar, string.format('%.0f', longer)))
end

-- Who waits for a turn. It does until it has had it, or has not tried for so long that it may be gone.
local function who_waits(waiting)
  local who, when = string.match(waiting or '', '^(%d+) (%d+)$')
  return who and now - when <= PATIENCE and who
end

local function commit(key, sidecar, writer, sequence, stamp, change, envelope, retry, expects)
  local length, seen, start = nil, nil, -TAIL
  if expects ~= '' then
    -- Where a length is expected, no more and no less comes back only if it is right.
    length, seen = string.match(expects, '^(%d+) (%d+)$')
    length = tonumber(length)
    if length then start = string.format('%.0f', math.max(length - TAIL, 0)) end
  end
  local tail = redis.pcall('GETRANGE', key, start, -1)
  if type(tail) == 'table' then return {0, tail.err} end
  local exists = tail ~= '' or redis.call('EXISTS', key) == 1
  local beside = redis.call('HMGET', sidecar, 'deleted', writer, 'horizon', 'waiting')
  local tombstone, before = beside[1] or '0', beside[2] or '0'
  local recorded, refused_before, ends = string.match(before, '^(%d+)(%-?) %d+ (%d+)$')

  local refuse = false
  if recorded and not above(sequence, recorded) then
    refuse = recorded == sequence and refused_before == '-'
    if not refuse then return {2, redis.call('GET', key), tombstone} end
  elseif not recorded and retry ~= '' and beside[3] and now - retry <= tonumber(beside[3]) then
    return {4, redis.call('GET', key), tombstone}
  elseif length then
    refuse = #tail ~= math.min(length, TAIL) or stamp_of(tail) ~= seen
  elseif expects == 'absent' then
    refuse = exists
  elseif expects ~= '' then
    refuse = expects == 'nothing' or not exists or redis.call('GET', key) ~= string.sub(expects, 2)
  end
  if refuse or not above(stamp, exists and stamp_of(tail) or tombstone) then
    -- What was refused stays so: the attempt in doubt must find the record when it arrives at last.
    local refused = retry ~= '' and record(sidecar, writer, sequence .. '-', ends)
    if refused then return {0, refused} end
    if length then
      local first, waits = who_waits(beside[4]), writer .. ' ' .. now
      if (not first or first == writer) and beside[4] ~= waits then redis.pcall('HSET', sidecar, 'waiting', waits) end
    end
    return {3, redis.call('GET', key), tombstone}
  end

  -- The record first: where the server refuses any of this, nothing was made.
  local refused = record(sidecar, writer, sequence, ends)
  if refused and change == 'delete' and string.find(refused, 'OOM ', 1, true) then
    -- But a delete needs no memory: once it is made, the script may write.
    redis.call('DEL', key)
    refused = record(sidecar, writer, sequence, ends)
  end
  if refused then
    -- The change is not even tried.
  elseif change == 'delete' then
    refused = refusal(redis.pcall('DEL', key))
  elseif change == 'keep' then
    refused = refusal(redis.pcall('SET', key, envelope, 'KEEPTTL'))
  elseif change == 'never' then
    refused = refusal(redis.pcall('SET', key, envelope))
  else
    refused = refusal(redis.pcall('SET', key, envelope, 'PX', change))
  end
  if refused then
    redis.pcall('HSET', sidecar, writer, before) -- as it was, or as good as no record
    return {0, refused}
  end
  if change == 'delete' and above(stamp, tombstone) and not above(stamp, LARGEST) then
    redis.call('HSET', sidecar, 'deleted', stamp)
  end
  local waits = who_waits(beside[4])
  if waits == writer or (beside[4] and not waits) then redis.pcall('HDEL', sidecar, 'waiting') end
  return {1, exists and 1 or 0, waits ~= writer and waits or ''}
end

local answers = {}
local argument = 4
for i = 1, #KEYS, 2 do
  answers[#answers + 1] = commit(KEYS[i], KEYS[i + 1], ARGV[argument], ARGV[argument + 1], ARGV[argument + 2],
    ARGV[argument + 3], ARGV[argument + 4], ARGV[argument + 5], ARGV[argument + 6])
  argument = argument + 7
end
return answers
