-- Reads a value of which something is known. A template, as commit.lua.
--
-- KEYS: the key and its sidecar
-- ARGV: the stamp and the length of what is known; "1" if the same stamp and length say that it is
--       there; how many bytes may be returned
-- Returns ${UNCHANGED}: what is known is there
--         the entries of a log (log.lua), the last one first, that make what is there of what is
--         known
--         ${TOO_LARGE}: more bytes than may be returned
--         else what is there

local LAST, TAIL = '${LAST}', '-${TAIL}'

${LOG}
local key, sidecar, most = KEYS[1], KEYS[2], tonumber(ARGV[4])
local length = redis.call('STRLEN', key)
local stamp = stamp_of(redis.call('GETRANGE', key, TAIL, '-1'))
local name = string.format('%.0f', length)
if name == ARGV[2] and stamp == ARGV[1] then
  if ARGV[3] == '1' then return ${UNCHANGED} end
else
  local changes = changes_since(sidecar, redis.call('HGET', sidecar, 'log'), stamp, name, ARGV[1],
    ARGV[2], most)
  if changes then return changes end
end
if length > most then return ${TOO_LARGE} end
return redis.call('GET', key)
