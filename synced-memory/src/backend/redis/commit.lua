-- Makes attempts to write keys, each by the rule of commit.rs, in one atomic step.
--
-- KEYS: for each attempt the key and its sidecar, a hash of
--         deleted    the stamp of the last delete: the tombstone
--         <writer>   "<last sequence number> <seconds since 1970>": what was applied, and when
-- ARGV: the sidecars' time to live in ms, the time in seconds since 1970, then for each attempt
--         writer, sequence number, stamp,
--         "delete", "keep" (store, keep the time to live) or the time to live in ms,
--         the envelope
-- Returns for each attempt
--         {1, existed}             applied
--         {2, stored, tombstone}   applied by an earlier attempt
--         {3, stored, tombstone}   refused: as new or newer
--         {0, message}             the server's own refusal
--
-- The value is never decoded: its stamp is in the last bytes. Stamps and sequence numbers compare as
-- decimal strings, since Lua numbers cannot hold them. Valid in Lua 5.1 and 5.4.

local sidecar_ttl, now = tonumber(ARGV[1]), ARGV[2]
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

local function commit(key, sidecar, writer, sequence, stamp, change, envelope)
  local tail = redis.pcall('GETRANGE', key, -64, -1)
  if type(tail) == 'table' then return {0, tail.err} end
  local exists = tail ~= '' or redis.call('EXISTS', key) == 1
  local beside = redis.call('HMGET', sidecar, 'deleted', writer)
  local tombstone = beside[1] or '0'
  local recorded = beside[2] and string.match(beside[2], '^%d+') or '0'

  if not above(sequence, recorded) then return {2, redis.call('GET', key), tombstone} end
  if not above(stamp, exists and stamp_of(tail) or tombstone) then return {3, redis.call('GET', key), tombstone} end

  local done
  if change == 'delete' then
    done = redis.pcall('DEL', key)
  elseif change == 'keep' then
    done = redis.pcall('SET', key, envelope, 'KEEPTTL')
  else
    done = redis.pcall('SET', key, envelope, 'PX', change)
  end
  if type(done) == 'table' and done.err then return {0, done.err} end

  local record = sequence .. ' ' .. now
  if change == 'delete' and above(stamp, tombstone) then
    redis.call('HSET', sidecar, writer, record, 'deleted', stamp)
  else
    redis.call('HSET', sidecar, writer, record)
  end
  -- A tenth more than asked for, so that not every write has to set it.
  if redis.call('PTTL', sidecar) < sidecar_ttl then
    redis.call('PEXPIRE', sidecar, string.format('%.0f', sidecar_ttl * 1.1))
  end
  return {1, exists and 1 or 0}
end

local answers = {}
local argument = 3
for i = 1, #KEYS, 2 do
  answers[#answers + 1] = commit(KEYS[i], KEYS[i + 1], ARGV[argument], ARGV[argument + 1],
    ARGV[argument + 2], ARGV[argument + 3], ARGV[argument + 4])
  argument = argument + 5
end
return answers
