-- Makes attempts to write keys, each by the rule of commit.rs, in one atomic step.
--
-- KEYS: for each attempt the key and its sidecar, a hash of
--         deleted    the stamp of the last delete: the tombstone
--         <writer>   "<last sequence number> <when> <until>": what was decided on last, when that was, and until
--                    when the sidecar is kept at least, in seconds since 1970
-- ARGV: the sidecars' time to live in ms, the time in seconds since 1970, then for each attempt
--         writer, sequence number, stamp,
--         "delete", or to store: "keep" (the time to live), "never" (to end) or the time to live in ms,
--         the envelope,
--         "1" where an earlier attempt is in doubt, else "0"
-- Returns for each attempt
--         {1, existed}             applied
--         {2, stored, tombstone}   applied by an earlier attempt
--         {3, stored, tombstone}   refused: as new or newer
--         {0, message}             the server's own refusal
--
-- The value is never decoded: its stamp is in the last bytes. Stamps and sequence numbers compare as
-- decimal strings, since Lua numbers cannot hold them. Valid in Lua 5.1 and 5.4.

local lifetime, now = tonumber(ARGV[1]), ARGV[2]
local needed = now + lifetime / 1000
local LARGEST = '4611686018427387904' -- 2^62: a larger stamp counts as 0

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

-- Records that the writer's attempt was decided on; returns the server's refusal, if it refuses that.
-- `ends`: when the sidecar expires at the earliest, as the writer's record before says.
local function record(sidecar, writer, sequence, ends)
  local note = sequence .. ' ' .. now .. ' '
  if ends and tonumber(ends) >= needed then return refusal(redis.pcall('HSET', sidecar, writer, note .. ends)) end
  local left = redis.pcall('PTTL', sidecar)
  if refusal(left) then return left.err end
  -- A tenth more than asked for, so that not every write has to set it. Never less than it is.
  local longer = math.max(left, lifetime * 1.1)
  note = note .. string.format('%.0f', math.floor(now + longer / 1000))
  local refused = refusal(redis.pcall('HSET', sidecar, writer, note))
  return refused or refusal(redis.pcall('PEXPIRE', sidecar, string.format('%.0f', longer)))
end

local function commit(key, sidecar, writer, sequence, stamp, change, envelope, retry)
  local tail = redis.pcall('GETRANGE', key, -64, -1)
  if type(tail) == 'table' then return {0, tail.err} end
  local exists = tail ~= '' or redis.call('EXISTS', key) == 1
  local beside = redis.call('HMGET', sidecar, 'deleted', writer)
  local tombstone, before = beside[1] or '0', beside[2] or '0'
  local recorded, ends = string.match(before, '^(%d+) %d+ (%d+)$')
  recorded = recorded or '0'

  if not above(sequence, recorded) then return {2, redis.call('GET', key), tombstone} end
  if not above(stamp, exists and stamp_of(tail) or tombstone) then
    -- What was superseded stays so: the attempt in doubt must find the record when it arrives at last.
    local refused = retry == '1' and record(sidecar, writer, sequence, ends)
    if refused then return {0, refused} end
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
  return {1, exists and 1 or 0}
end

local answers = {}
local argument = 3
for i = 1, #KEYS, 2 do
  answers[#answers + 1] = commit(KEYS[i], KEYS[i + 1], ARGV[argument], ARGV[argument + 1],
    ARGV[argument + 2], ARGV[argument + 3], ARGV[argument + 4], ARGV[argument + 5])
  argument = argument + 6
end
return answers
