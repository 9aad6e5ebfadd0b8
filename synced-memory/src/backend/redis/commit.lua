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
--         wrote      "<stamp> <length> list": what this script last wrote there, if that was a list
--                    in an envelope of ours. The fast path leaves it as it is: it names another
--                    stamp then
--         log, +<n>  the log of changes to a long value: log.lua
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
--         "${ADD} <in doubt> <how to store> <step> <min> <max>"
--           add the integer in place of the envelope to the one that is there
--         "${APPEND} <in doubt> <how to store> <step>"
--           append the items in place of the envelope to the list that is there
--           step        how far the stamp is at least above the one that is there
--         "${CHANGE} <in doubt> <how to store> <length> <stamp> <kind>"
--           replace ranges (edit.lua says how they come in place of the envelope) if what is there
--           has this length and stamp; kind is "list" if the result is a list in an envelope of
--           ours. It is a number if the first range only adds a member at the end of an object: it
--           may go behind what others have added since, with a stamp that is at least so far above
-- Returns ${APPLIED} if all were applied to what was there, else for each attempt
--         ${APPLIED}
--           applied to what was there
--         {${APPLIED}, existed, starved}
--           applied; which other writer is starved, or ""
--         {${ADDED}, stamp before, length before, stamp, sum, starved}
--           added to what was there, or appended (sum: "")
--         {${ADDED_BEHIND}, entry, stamp before, starved}
--           added behind what others have added since; how what is there now is made of what was
--           expected, as an entry of the log
--         {${ALREADY_APPLIED}, stored, tombstone}
--           an earlier attempt was applied
--         {${REFUSED}, stored, tombstone}
--           something as new or newer is there, or not what was expected; for "${CHANGE}", stored
--           may be the entries of the log that make it of what was expected, the last one first
--         {${RECORD_EXPIRED}, stored, tombstone}
--           whether an earlier attempt was applied is not known any more
--         {${SERVER_ERROR}, message}
--           the server refused
--
-- The value is never decoded: its stamp is in the last bytes. Stamps and sequence numbers compare
-- as decimal strings, since Lua numbers cannot hold all of them. Valid in Lua 5.1 and 5.4.

local LAST, TAIL = '${LAST}', '-${TAIL}'

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
${LOG}
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

-- Records that the writer's attempt was decided on, what it wrote, if that is to be known, and how
-- it changed what was there, if that is to be logged. Returns the server's refusal, if there is
-- one.
local function record(sidecar, writer, number, is_new, wrote, logged)
  local left, refused, answer = redis.pcall('PTTL', sidecar), nil, nil
  local time = writer .. '${TIME}'
  if refusal(left) then return left.err end
  if wrote and logged then
    answer = redis.pcall('HSET', sidecar, writer, number, time, now, 'wrote', wrote,
      'log', logged.log, logged.name, logged.entry)
  elseif logged then
    answer = redis.pcall('HSET', sidecar, writer, number, time, now,
      'log', logged.log, logged.name, logged.entry)
  elseif wrote then
    answer = redis.pcall('HSET', sidecar, writer, number, time, now, 'wrote', wrote)
  else
    answer = redis.pcall('HSET', sidecar, writer, number, time, now)
  end
  refused = refusal(answer)
  if refused then return refused end
  if is_new then prune(sidecar, writer) end
  -- A tenth more than necessary, so that not every write has to set it. It is never shortened.
  return left < kept
    and refusal(redis.pcall('PEXPIRE', sidecar, string.format('%.0f', kept * 1.1)))
end

-- Drops entries of a log, from one number up to another.
local function drop_entries(sidecar, first, next)
  for number = first, next - 1 do
    redis.pcall('HDEL', sidecar, '+' .. number % ${LOG_ENTRIES})
  end
end

-- Drops a log: the whole value is stored.
local function drop_log(sidecar, log)
  local first, next = parts_of(log)
  redis.pcall('HDEL', sidecar, 'log')
  drop_entries(sidecar, first, next)
end

-- The starved writer, unless it has not tried for so long that it may be gone.
local function starved_in(waiting)
  local who, when = string.match(waiting or '', '^(%d+) (%d+)$')
  return who and now - when <= ${STARVATION_TIMEOUT} and who
end

-- The writer's change was made. Returns which other writer is starved, or "".
local function starved_after(sidecar, writer, waiting)
  local starved = starved_in(waiting)
  if starved == writer or (waiting and not starved) then
    redis.pcall('HDEL', sidecar, 'waiting')
  end
  return starved ~= writer and starved or ''
end

-- What the sidecar says of an attempt.
local function beside(key, sidecar, writer, number, retry)
  local found = redis.call('HMGET', sidecar, 'deleted', writer, 'horizon', 'waiting', 'wrote',
    'log')
  local it = {tombstone = found[1] or '0', before = found[2] or '0', waiting = found[4],
    wrote = found[5], log = found[6]}
  local recorded, refused_before = string.match(it.before, '^(%d+)(%-?)$')
  it.is_new = not recorded or recorded == '0'
  if not it.is_new and not above(number, recorded) then
    it.is_refused = recorded == number and refused_before == '-'
    if not it.is_refused then
      it.answer = {${ALREADY_APPLIED}, redis.call('GET', key), it.tombstone}
    end
  elseif it.is_new and retry ~= '' and found[3] and now - retry <= tonumber(found[3]) then
    it.answer = {${RECORD_EXPIRED}, redis.call('GET', key), it.tombstone}
  end
  return it
end

-- What is there, for a writer who expected something else of a long value: what has changed since,
-- if the log says so.
local function found_instead(key, sidecar, log, expected)
  local there = redis.call('STRLEN', key)
  local stamp = stamp_of(redis.call('GETRANGE', key, TAIL, '-1'))
  local changes = changes_since(sidecar, log, stamp, string.format('%.0f', there), expected.stamp,
    expected.length, there)
  return changes or redis.call('GET', key)
end

-- The answer to an attempt that is not made. The attempt in doubt has to find the record, and be
-- refused too, if it arrives later. `expected`: the stamp and length that were expected of a long
-- value.
local function refuse(key, sidecar, writer, number, retry, it, expected)
  local refused = retry ~= '' and record(sidecar, writer, number .. '-', it.is_new)
  if refused then return {${SERVER_ERROR}, refused} end
  local found = expected and it.log and found_instead(key, sidecar, it.log, expected)
  return {${REFUSED}, found or redis.call('GET', key), it.tombstone}
end

-- The same for a change to what is there, which somebody else has changed first: if that happens
-- again and again, its writer is starved.
local function refuse_change(key, sidecar, writer, number, retry, it, expected)
  local answer = refuse(key, sidecar, writer, number, retry, it, expected)
  local starved, own = starved_in(it.waiting), writer .. ' ' .. now
  if answer[1] == ${REFUSED} and (not starved or starved == writer) and it.waiting ~= own then
    redis.pcall('HSET', sidecar, 'waiting', own)
  end
  return answer
end

-- The server has refused a change after it was recorded: it is as before, or as good as no record.
local function undo(sidecar, writer, it, refused)
  redis.pcall('HSET', sidecar, writer, it.before)
  return {${SERVER_ERROR}, refused}
end

local function store(key, envelope, how)
  if how == '${KEEP}' then return refusal(redis.pcall('SET', key, envelope, 'KEEPTTL')) end
  if how == '${NEVER}' then return refusal(redis.pcall('SET', key, envelope)) end
  return refusal(redis.pcall('SET', key, envelope, 'PX', how))
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
  local it = beside(key, sidecar, writer, number, retry)
  if it.answer then return it.answer end

  local is_refused = it.is_refused
  if is_refused then
    -- Whatever is there.
  elseif expected then
    is_refused = #tail ~= tonumber(count) or stamp_of(tail) ~= expected
  elseif expects == '${ABSENT}' then
    is_refused = exists
  elseif expects ~= '' then
    is_refused = expects == '${NOTHING}' or not exists
      or redis.call('GET', key) ~= string.sub(expects, 2)
  end
  if is_refused or not above(stamp, exists and stamp_of(tail) or it.tombstone) then
    local refused = expected and refuse_change or refuse
    return refused(key, sidecar, writer, number, retry, it)
  end

  local wrote = string.sub(envelope, 1, ${PREFIX_LENGTH} + 1) == '${PREFIX}['
    and string.match(envelope, '%],"last_modified": (%d+)}$')
  wrote = wrote and wrote .. ' ' .. #envelope .. ' list'
  if it.log then drop_log(sidecar, it.log) end
  -- The record comes first: if the server refuses any of this, nothing was made.
  local refused = record(sidecar, writer, number, it.is_new, wrote)
  if refused and change == '${DELETE}' and string.find(refused, 'OOM ', 1, true) then
    -- But a delete needs no memory, and once it is made, the script may write.
    redis.call('DEL', key)
    refused = record(sidecar, writer, number, it.is_new)
  end
  if refused then
    -- The change is not even tried.
  elseif change == '${DELETE}' then
    refused = refusal(redis.pcall('DEL', key))
  else
    refused = store(key, envelope, change)
  end
  if refused then return undo(sidecar, writer, it, refused) end
  if change == '${DELETE}' and above(stamp, it.tombstone) and not above(stamp, LARGEST) then
    redis.call('HSET', sidecar, 'deleted', stamp)
  end
  return {${APPLIED}, exists and 1 or 0, starved_after(sidecar, writer, it.waiting)}
end

${EDIT}
local functions = {['${ADD}'] = add, ['${APPEND}'] = append, ['${CHANGE}'] = edit}
at = 1
for i = 1, #KEYS, 2 do
  local done = (i + 1) / 2
  local make = functions[string.match(ARGV[at + 6], '^%S+')] or commit
  answers[done] = answers[done]
    or make(KEYS[i], KEYS[i + 1], ARGV[at + 1], ARGV[at + 2], ARGV[at + 4], ARGV[at + 5],
      ARGV[at + 6])
  at = at + 6
end
return answers
