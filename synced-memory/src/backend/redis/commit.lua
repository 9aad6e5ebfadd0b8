-- Makes attempts to write keys, each by the rule of commit.rs, in one atomic step.
--
-- A template: redis/commit.rs puts its constants in place of the names in braces.
--
-- KEYS: for each attempt the key and its sidecar, a hash of
--         deleted    the stamp of the last delete: the tombstone
--         <writer>   the sequence number of its last attempt that was decided on; with a "-" behind
--                    it if that attempt was refused; 0 is as good as no record
--         <writer>${TIME}  when that was recorded, in seconds since 1970; for LAG seconds, later
--                    records of the writer may replace it without a new time
--         horizon    records up to this time may have been dropped, in seconds since 1970
--         waiting    "<writer> <when>": the starved writer, whose change was refused first and has
--                    not been made since, and when it last tried
-- ARGV: "<how long a sidecar is kept at least, in ms> <LAG> <now, in seconds since 1970> <how many
--       records a sidecar has at most>", then for each attempt
--         writer, sequence number,
--         gap: how far the number is above the one on record, if that is known and was recorded
--           less than LAG seconds ago, and the instruction is one of the first two below; else "",
--         stamp, envelope, and an instruction:
--         "${KEEP}"
--           store, and keep the time to live that the key has; whatever is there
--         "${KEEP}  <start> <count> <stamp>"
--           the same, if what is there has so many bytes from <start> to its end, and this stamp
--         "<change> <in doubt> <expected>", with
--           change      "${DELETE}", or how to store: "${KEEP}", "${NEVER}" (to expire) or the time
--                       to live in ms
--           in doubt    if an earlier attempt is in doubt: how many seconds ago the first one was
--                       made; else ""
--           expected    "" (anything), "${ABSENT}", "${NOTHING}" (refuse in any case),
--                       "<start> <count> <stamp>" as above, or "=" and the bytes
-- Returns ${APPLIED} if all were applied to what was there, else for each attempt
--         ${APPLIED}
--           applied to what was there
--         {${APPLIED}, existed, starved}
--           applied; which other writer is starved, or ""
--         {${ALREADY_APPLIED}, stored, tombstone}
--           an earlier attempt was applied
--         {${REFUSED}, stored, tombstone}
--           something as new or newer is there, or not what was expected
--         {${RECORD_EXPIRED}, stored, tombstone}
--           whether an earlier attempt was applied is not known any more
--         {${SERVER_ERROR}, message}
--           the server refused
--
-- The value is never decoded: its stamp is in the last bytes. Stamps and sequence numbers compare
-- as decimal strings, since Lua numbers cannot hold all of them. Valid in Lua 5.1 and 5.4.

local LAST = '"last_modified":%s*(%d+)%s*}%s*$'
local TAIL = '-${TAIL}'

-- The fast path, for what most attempts find: a value, no other writer in between, and their own
-- last number on record. Without a function and with as few strings as possible, since those are
-- what a script costs.
local answers, is_more, at = {}, false, 1
for i = 1, #KEYS, 2 do
  local key, sidecar, writer, number = KEYS[i], KEYS[i + 1], ARGV[at + 1], ARGV[at + 2]
  local gap, stamp, envelope, instruction = ARGV[at + 3], ARGV[at + 4], ARGV[at + 5], ARGV[at + 6]
  local is_done = false
  if gap ~= '' then
    local start, count, expected = TAIL, nil, nil
    if instruction ~= '${KEEP}' then
      start, count, expected = string.match(instruction, '^${KEEP}  (%d+) (%d+) (%d+)$')
    end
    local tail = redis.pcall('GETRANGE', key, start, '-1')
    local there = type(tail) == 'string' and string.match(tail, LAST)
    if there and (#there < #stamp or #there == #stamp and there < stamp)
        and (not expected or there == expected and #tail == tonumber(count)
          and not redis.pcall('HGET', sidecar, 'waiting')) then
      local now = redis.pcall('HINCRBY', sidecar, writer, gap)
      if now == tonumber(number) then
        local stored = redis.pcall('SET', key, envelope, 'KEEPTTL')
        is_done = not stored.err
      end
      -- Undo the record. If there was none before, the gap was added to nothing.
      if not is_done and type(now) == 'number'
          and redis.pcall('HINCRBY', sidecar, writer, '-' .. gap) == 0 then
        redis.pcall('HDEL', sidecar, writer)
      end
    end
  end
  answers[(i + 1) / 2] = is_done and ${APPLIED}
  is_more = is_more or not is_done
  at = at + 6
end
if not is_more then return ${APPLIED} end

local kept, lag, now, most = string.match(ARGV[1], '^(%d+) (%d+) (%d+) (%d+)$')
kept, lag, most = tonumber(kept), tonumber(lag), tonumber(most)
local LARGEST = '${LARGEST_STAMP}' -- a larger stamp counts as 0

local function above(a, b)
  if #a ~= #b then return #a > #b end
  return a > b
end

local function stamp_of(tail)
  local stamp = string.match(tail, LAST)
  stamp = stamp and string.gsub(stamp, '^0+', '') or ''
  if stamp == '' or above(stamp, LARGEST) then return '0' end
  return stamp
end

local function refusal(answer)
  return type(answer) == 'table' and answer.err
end

-- Drops the older half of the records if there are too many. If the server refuses that, they stay.
local function prune(sidecar, writer)
  local held = redis.pcall('HLEN', sidecar)
  if refusal(held) or held <= 2 * most then return end
  local all, whens, times = redis.pcall('HGETALL', sidecar), {}, {}
  if refusal(all) then return end
  for i = 1, #all, 2 do
    local who = string.match(all[i], '^(%d+)${TIME}$')
    if who then
      whens[who] = tonumber(all[i + 1])
      times[#times + 1] = whens[who]
    end
  end
  if #times <= most then return end
  table.sort(times)
  local horizon = times[math.floor((#times + 1) / 2)]
  local set = redis.pcall('HSET', sidecar, 'horizon', string.format('%.0f', horizon + lag))
  if refusal(set) then return end
  for who, when in pairs(whens) do
    if when <= horizon and who ~= writer then
      redis.pcall('HDEL', sidecar, who, who .. '${TIME}')
    end
  end
end

-- Records that the writer's attempt was decided on. Returns the server's refusal, if there is one.
local function record(sidecar, writer, number, is_new)
  local left = redis.pcall('PTTL', sidecar)
  local refused = refusal(left)
    or refusal(redis.pcall('HSET', sidecar, writer, number, writer .. '${TIME}', now))
  if refused then return refused end
  if is_new then prune(sidecar, writer) end
  -- A tenth more than necessary, so that not every write has to set it. It is never shortened.
  return left < kept
    and refusal(redis.pcall('PEXPIRE', sidecar, string.format('%.0f', kept * 1.1)))
end

-- The starved writer, unless it has not tried for so long that it may be gone.
local function starved_in(waiting)
  local who, when = string.match(waiting or '', '^(%d+) (%d+)$')
  return who and now - when <= ${STARVATION_TIMEOUT} and who
end

local function commit(key, sidecar, writer, number, stamp, envelope, instruction)
  local change, retry, expects = instruction, '', ''
  if instruction ~= '${KEEP}' then
    change, retry, expects = string.match(instruction, '^(%S+) (%d*) (.*)$')
  end
  -- Exactly `count` bytes come back only if the length is the expected one.
  local start, count, expected = string.match(expects, '^(%d+) (%d+) (%d+)$')
  local tail = redis.pcall('GETRANGE', key, start or TAIL, '-1')
  if type(tail) == 'table' then return {${SERVER_ERROR}, tail.err} end
  local exists = tail ~= '' or redis.call('EXISTS', key) == 1
  local beside = redis.call('HMGET', sidecar, 'deleted', writer, 'horizon', 'waiting')
  local tombstone, before, waiting = beside[1] or '0', beside[2] or '0', beside[4]
  local recorded, refused_before = string.match(before, '^(%d+)(%-?)$')
  local is_new = not recorded or recorded == '0'

  local refuse = false
  if not is_new and not above(number, recorded) then
    refuse = recorded == number and refused_before == '-'
    if not refuse then return {${ALREADY_APPLIED}, redis.call('GET', key), tombstone} end
  elseif is_new and retry ~= '' and beside[3] and now - retry <= tonumber(beside[3]) then
    return {${RECORD_EXPIRED}, redis.call('GET', key), tombstone}
  elseif expected then
    refuse = #tail ~= tonumber(count) or stamp_of(tail) ~= expected
  elseif expects == '${ABSENT}' then
    refuse = exists
  elseif expects ~= '' then
    refuse = expects == '${NOTHING}' or not exists
      or redis.call('GET', key) ~= string.sub(expects, 2)
  end
  if refuse or not above(stamp, exists and stamp_of(tail) or tombstone) then
    -- The attempt in doubt has to find the record, and be refused too, if it arrives later.
    local refused = retry ~= '' and record(sidecar, writer, number .. '-', is_new)
    if refused then return {${SERVER_ERROR}, refused} end
    if expected then
      local starved, own = starved_in(waiting), writer .. ' ' .. now
      if (not starved or starved == writer) and waiting ~= own then
        redis.pcall('HSET', sidecar, 'waiting', own)
      end
    end
    return {${REFUSED}, redis.call('GET', key), tombstone}
  end

  -- The record comes first: if the server refuses any of this, nothing was made.
  local refused = record(sidecar, writer, number, is_new)
  if refused and change == '${DELETE}' and string.find(refused, 'OOM ', 1, true) then
    -- But a delete needs no memory, and once it is made, the script may write.
    redis.call('DEL', key)
    refused = record(sidecar, writer, number, is_new)
  end
  if refused then
    -- The change is not even tried.
  elseif change == '${DELETE}' then
    refused = refusal(redis.pcall('DEL', key))
  elseif change == '${KEEP}' then
    refused = refusal(redis.pcall('SET', key, envelope, 'KEEPTTL'))
  elseif change == '${NEVER}' then
    refused = refusal(redis.pcall('SET', key, envelope))
  else
    refused = refusal(redis.pcall('SET', key, envelope, 'PX', change))
  end
  if refused then
    redis.pcall('HSET', sidecar, writer, before) -- as it was, or as good as no record
    return {${SERVER_ERROR}, refused}
  end
  if change == '${DELETE}' and above(stamp, tombstone) and not above(stamp, LARGEST) then
    redis.call('HSET', sidecar, 'deleted', stamp)
  end
  local starved = starved_in(waiting)
  if starved == writer or (waiting and not starved) then
    redis.pcall('HDEL', sidecar, 'waiting')
  end
  return {${APPLIED}, exists and 1 or 0, starved ~= writer and starved or ''}
end

at = 1
for i = 1, #KEYS, 2 do
  local done = (i + 1) / 2
  answers[done] = answers[done]
    or commit(KEYS[i], KEYS[i + 1], ARGV[at + 1], ARGV[at + 2], ARGV[at + 4], ARGV[at + 5],
      ARGV[at + 6])
  at = at + 6
end
return answers
