-- Makes attempts to write keys, each by the rule of commit.rs, in one atomic step.
--
-- KEYS: for each attempt the key and its sidecar, a hash of
--         deleted    the stamp of the last delete: the tombstone
--         <writer>   the number of its attempt that was decided on last; a "-" behind it says that it was refused,
--                    and 0 is as good as nothing
--         <writer>@  when that was put down, in seconds since 1970; later numbers may be there for STEPS seconds
--         horizon    records of until then may have been dropped, in seconds since 1970
--         waiting    "<writer> <when>": who was refused first and waits for its turn, and when it last tried
-- ARGV: "<how long a sidecar is kept at least, in ms> <STEPS> <the time in seconds since 1970> <how many records a
--       sidecar has at most>", then for each attempt
--         writer, number,
--         how far the number is above the one that is on record, where that is known and was put down less than STEPS
--         seconds ago, and nothing but "keep" is asked for, on what the first two rows here expect; else "",
--         stamp, envelope,
--         "keep"                                    store, with the time to live that the key has; on anything
--         "keep  <start> <count> <stamp>"           … on what has so many bytes from `start` to its end, and this stamp
--         "<change> <in doubt> <what is expected>"  with
--           change      "delete", or to store: "keep", "never" (to end) or the time to live in ms
--           in doubt    where an earlier attempt is: how many seconds ago the first one was; else ""
--           expected    "" anything, "absent", "nothing" (refuse in any case), as above, or "=" and the bytes
-- Returns 1 where all were applied to what was there, or for each attempt
--         1                        applied to what was there
--         {1, existed, waiting}    applied; and which other writer was refused before, and waits for its turn
--         {2, stored, tombstone}   applied by an earlier attempt
--         {3, stored, tombstone}   refused: as new or newer, or not what was expected
--         {4, stored, tombstone}   whether it was applied by an earlier attempt is forgotten
--         {0, message}             the server's own refusal
--
-- The value is never decoded: its stamp is in the last bytes. Stamps and numbers compare as decimal strings, since Lua
-- numbers cannot hold all of them. Valid in Lua 5.1 and 5.4.

local LAST = '"last_modified":%s*(%d+)%s*}%s*$'
local TAIL = '-64'

-- What most attempts find: a value, nobody in between, and their writer's last number on record. Without a function and
-- with as few strings as can be, since those are what a script costs.
local answers, is_more, at = {}, false, 1
for i = 1, #KEYS, 2 do
  local key, sidecar, writer, number = KEYS[i], KEYS[i + 1], ARGV[at + 1], ARGV[at + 2]
  local step, stamp, envelope, how = ARGV[at + 3], ARGV[at + 4], ARGV[at + 5], ARGV[at + 6]
  local is_done = false
  if step ~= '' then
    local start, count, seen = TAIL, nil, nil
    if how ~= 'keep' then start, count, seen = string.match(how, '^keep  (%d+) (%d+) (%d+)$') end
    local tail = redis.pcall('GETRANGE', key, start, '-1')
    local there = type(tail) == 'string' and string.match(tail, LAST)
    if there and (#there < #stamp or #there == #stamp and there < stamp)
        and (not seen or there == seen and #tail == tonumber(count) and not redis.pcall('HGET', sidecar, 'waiting')) then
      local now = redis.pcall('HINCRBY', sidecar, writer, step)
      if now == tonumber(number) then
        local stored = redis.pcall('SET', key, envelope, 'KEEPTTL')
        is_done = not stored.err
      end
      if not is_done and type(now) == 'number' and redis.pcall('HINCRBY', sidecar, writer, '-' .. step) == 0 then
        redis.pcall('HDEL', sidecar, writer)
      end
    end
  end
  answers[(i + 1) / 2] = is_done and 1
  is_more = is_more or not is_done
  at = at + 6
end
if not is_more then return 1 end

local kept, steps, now, most = string.match(ARGV[1], '^(%d+) (%d+) (%d+) (%d+)$')
kept, steps, most = tonumber(kept), tonumber(steps), tonumber(most)
local LARGEST = '4611686018427387904' -- 2^62: a larger stamp counts as 0
local PATIENCE = 2

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

-- Drops the older half of the records, where there are too many. A server that refuses that keeps them.
local function prune(sidecar, writer)
  local held = redis.pcall('HLEN', sidecar)
  if refusal(held) or held <= 2 * most then return end
  local all, whens, times = redis.pcall('HGETALL', sidecar), {}, {}
  if refusal(all) then return end
  for i = 1, #all, 2 do
    local who = string.match(all[i], '^(%d+)@$')
    if who then
      whens[who] = tonumber(all[i + 1])
      times[#times + 1] = whens[who]
    end
  end
  if #times <= most then return end
  table.sort(times)
  local horizon = times[math.floor((#times + 1) / 2)]
  if refusal(redis.pcall('HSET', sidecar, 'horizon', string.format('%.0f', horizon + steps))) then return end
  for who, when in pairs(whens) do
    if when <= horizon and who ~= writer then redis.pcall('HDEL', sidecar, who, who .. '@') end
  end
end

-- Records that the writer's attempt was decided on; returns the server's refusal, if it refuses that.
local function record(sidecar, writer, number, is_new)
  local left = redis.pcall('PTTL', sidecar)
  local refused = refusal(left) or refusal(redis.pcall('HSET', sidecar, writer, number, writer .. '@', now))
  if refused then return refused end
  if is_new then prune(sidecar, writer) end
  -- A tenth more than asked for, so that not every write has to set it. Never less than it is.
  return left < kept and refusal(redis.pcall('PEXPIRE', sidecar, string.format('%.0f', kept * 1.1)))
end

-- Who waits for a turn. It does until it has had it, or has not tried for so long that it may be gone.
local function who_waits(waiting)
  local who, when = string.match(waiting or '', '^(%d+) (%d+)$')
  return who and now - when <= PATIENCE and who
end

local function commit(key, sidecar, writer, number, stamp, envelope, how)
  local change, retry, expects = how, '', ''
  if how ~= 'keep' then change, retry, expects = string.match(how, '^(%S+) (%d*) (.*)$') end
  -- No more and no less than `count` bytes come back only if the length is right.
  local start, count, seen = string.match(expects, '^(%d+) (%d+) (%d+)$')
  local tail = redis.pcall('GETRANGE', key, start or TAIL, '-1')
  if type(tail) == 'table' then return {0, tail.err} end
  local exists = tail ~= '' or redis.call('EXISTS', key) == 1
  local beside = redis.call('HMGET', sidecar, 'deleted', writer, 'horizon', 'waiting')
  local tombstone, before, waiting = beside[1] or '0', beside[2] or '0', beside[4]
  local recorded, refused_before = string.match(before, '^(%d+)(%-?)$')
  local is_new = not recorded or recorded == '0'

  local refuse = false
  if not is_new and not above(number, recorded) then
    refuse = recorded == number and refused_before == '-'
    if not refuse then return {2, redis.call('GET', key), tombstone} end
  elseif is_new and retry ~= '' and beside[3] and now - retry <= tonumber(beside[3]) then
    return {4, redis.call('GET', key), tombstone}
  elseif seen then
    refuse = #tail ~= tonumber(count) or stamp_of(tail) ~= seen
  elseif expects == 'absent' then
    refuse = exists
  elseif expects ~= '' then
    refuse = expects == 'nothing' or not exists or redis.call('GET', key) ~= string.sub(expects, 2)
  end
  if refuse or not above(stamp, exists and stamp_of(tail) or tombstone) then
    -- What was refused stays so: the attempt in doubt must find the record when it arrives at last.
    local refused = retry ~= '' and record(sidecar, writer, number .. '-', is_new)
    if refused then return {0, refused} end
    if seen then
      local first, waits = who_waits(waiting), writer .. ' ' .. now
      if (not first or first == writer) and waiting ~= waits then redis.pcall('HSET', sidecar, 'waiting', waits) end
    end
    return {3, redis.call('GET', key), tombstone}
  end

  -- The record first: where the server refuses any of this, nothing was made.
  local refused = record(sidecar, writer, number, is_new)
  if refused and change == 'delete' and string.find(refused, 'OOM ', 1, true) then
    -- But a delete needs no memory: once it is made, the script may write.
    redis.call('DEL', key)
    refused = record(sidecar, writer, number, is_new)
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
  local waits = who_waits(waiting)
  if waits == writer or (waiting and not waits) then redis.pcall('HDEL', sidecar, 'waiting') end
  return {1, exists and 1 or 0, waits ~= writer and waits or ''}
end

at = 1
for i = 1, #KEYS, 2 do
  local done = (i + 1) / 2
  answers[done] = answers[done]
    or commit(KEYS[i], KEYS[i + 1], ARGV[at + 1], ARGV[at + 2], ARGV[at + 4], ARGV[at + 5], ARGV[at + 6])
  at = at + 6
end
return answers
