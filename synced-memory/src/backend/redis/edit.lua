-- Changes to what is there, whatever that is by then. A part of commit.lua, which says what is
-- given and returned.

-- The sum of a stamp and a step, which is smaller than 10^9.
local function later(stamp, step)
  if #stamp < 10 then return string.format('%.0f', stamp + step) end
  local low = string.sub(stamp, -9) + step
  local carry = low >= 1000000000 and 1 or 0
  return string.format('%.0f%09.0f', string.sub(stamp, 1, -10) + carry, low - carry * 1000000000)
end

-- The stamp of what is made of a value that has the stamp `there`; nil if there is none above that.
local function stamp_above(there, own, step)
  local stamp = later(there, step)
  if above(own, stamp) then stamp = own end
  return not above(stamp, LARGEST) and stamp or nil
end

-- Whether an integer is less than another one; both are as JSON has them.
local function is_less(one, other)
  local minus, other_minus = string.sub(one, 1, 1) == '-', string.sub(other, 1, 1) == '-'
  if minus ~= other_minus then return minus end
  if minus then return above(string.sub(one, 2), string.sub(other, 2)) end
  return above(other, one)
end

-- The sum of two integers, nil beyond 64 bits.
local function sum_of(sidecar, one, other)
  -- Lua's numbers are exact so far.
  if #one < 16 and #other < 16 then return string.format('%.0f', one + other) end
  -- The server's are exact for all of 64 bits, and it refuses more.
  if refusal(redis.pcall('HSET', sidecar, 'sum', one)) then return nil end
  local is_made = not refusal(redis.pcall('HINCRBY', sidecar, 'sum', other))
  local sum = redis.call('HGET', sidecar, 'sum')
  redis.call('HDEL', sidecar, 'sum')
  return is_made and sum or nil
end

local function add(key, sidecar, writer, number, stamp, by, instruction)
  local retry, how, step, least, most = string.match(instruction,
    '^%S+ (%d*) (%S+) (%d+) (%S+) (%S+)$')
  local all = redis.pcall('GETRANGE', key, '0', '${LONGEST_INTEGER}')
  if type(all) == 'table' then return {${SERVER_ERROR}, all.err} end
  local it = beside(key, sidecar, writer, number, retry)
  if it.answer then return it.answer end

  local integer = #all <= ${LONGEST_INTEGER}
    and string.match(all, '^%s*{%s*"value"%s*:%s*(%-?%d+)%s*,%s*' .. LAST)
  local is_plain = integer == '0' or integer and string.find(integer, '^%-?[1-9]')
  local there = is_plain and stamp_of(all)
  local after = there and not it.is_refused and stamp_above(there, stamp, step)
  local sum = after and sum_of(sidecar, integer, by)
  if not sum or is_less(sum, least) or is_less(most, sum) then
    return refuse(key, sidecar, writer, number, retry, it)
  end

  local refused = record(sidecar, writer, number, it.is_new)
    or store(key, '${PREFIX}' .. sum .. ',"last_modified": ' .. after .. '}', how)
  if refused then return undo(sidecar, writer, it, refused) end
  return {${ADDED}, there, #all, after, sum, starved_after(sidecar, writer, it.waiting)}
end

-- The entry for a change, as it is to be recorded, for a value that is long afterwards, or of which
-- others want to know (`is_shared`). What it pushes out of the log is dropped.
local function logged(sidecar, log, length, entry, is_shared)
  if length < ${LONG} and not is_shared then return nil end
  local first, next, bytes = parts_of(log)
  local most = math.max(length, ${LONG}) / 4
  local kept = first
  while kept < next
      and (next - kept >= ${LOG_ENTRIES} or bytes + #entry > most or #entry > most) do
    bytes = bytes - #(redis.call('HGET', sidecar, '+' .. kept % ${LOG_ENTRIES}) or '')
    kept = kept + 1
  end
  -- The new one takes the place of the first of a full log.
  local is_full = next - first == ${LOG_ENTRIES}
  drop_entries(sidecar, is_full and #entry <= most and first + 1 or first, kept)
  if #entry > most then
    if first < next then redis.pcall('HDEL', sidecar, 'log') end
    return nil
  end
  return {log = string.format('%.0f %.0f %.0f', kept, next + 1, bytes + #entry),
    name = '+' .. next % ${LOG_ENTRIES}, entry = entry}
end

local function append(key, sidecar, writer, number, stamp, items, instruction)
  local retry, how, step = string.match(instruction, '^%S+ (%d*) (%S+) (%d+)$')
  local length = redis.pcall('STRLEN', key)
  if refusal(length) then return {${SERVER_ERROR}, length.err} end
  local tail = redis.call('GETRANGE', key, TAIL, '-1')
  local it = beside(key, sidecar, writer, number, retry)
  if it.answer then return it.answer end

  local before, there = string.match(tail, '(.)%],"last_modified": (%d+)}$')
  local is_empty = there and tail == '${PREFIX}[],"last_modified": ' .. there .. '}'
  -- Only of what this script has written it is known that the list at the end is the value. Who
  -- edits by hand may have kept stamp and length: what looks empty is not what was written.
  local is_known = there and it.wrote == there .. ' ' .. length .. ' list'
    and (is_empty or not string.find(before, '[%[%s]'))
  local after = is_known and not it.is_refused and stamp_above(there, stamp, step)
  -- What has to begin or to cease to expire is stored anew: what is made here can be undone.
  local left = after and how ~= '${KEEP}' and redis.call('PTTL', key)
  if not after or left and (how == '${NEVER}') ~= (left == -1) then
    return refuse(key, sidecar, writer, number, retry, it)
  end

  local start = length - #there - ${LIST_END_LENGTH}
  local text = (is_empty and '' or ',') .. items .. '],"last_modified": ' .. after .. '}'
  local sets_expiry = left and how ~= '${NEVER}'
  local becomes = after .. ' ' .. string.format('%.0f', start + #text)
  local entry = string.format('%s %.0f %s %.0f %.0f %.0f\n%s', there, length, becomes, start,
    length - start, #text, text)
  local refused = record(sidecar, writer, number, it.is_new, becomes .. ' list',
      logged(sidecar, it.log, start + #text, entry))
    or sets_expiry and refusal(redis.pcall('PEXPIRE', key, how))
    or refusal(redis.pcall('SETRANGE', key, start, text))
  if refused then
    if sets_expiry then redis.pcall('PEXPIRE', key, left) end
    redis.pcall('HSET', sidecar, 'wrote', it.wrote)
    return undo(sidecar, writer, it, refused)
  end
  return {${ADDED}, there, length, after, '', starved_after(sidecar, writer, it.waiting)}
end

-- The ranges of an edit, from a payload that has their number and then, for each of them, where it
-- is, how long it is and becomes, how many bytes on each side of it are compared with it, and how
-- long what it is compared with is; behind all of that what it becomes, and what it is compared
-- with: the bytes, or their SHA-1 if they are more than ${SHORT_GUARD}.
local function ranges_in(payload)
  local head, at = string.match(payload, '^([%d ]+)\n()')
  local numbers, ranges = {}, {}
  for number in string.gmatch(head, '%d+') do numbers[#numbers + 1] = tonumber(number) end
  local function take(count)
    at = at + count
    return string.sub(payload, at - count, at - 1)
  end
  for i = 1, #numbers, 6 do
    ranges[#ranges + 1] = {start = numbers[i], length = numbers[i + 1],
      before = numbers[i + 3], after = numbers[i + 4],
      text = take(numbers[i + 2]), found = take(numbers[i + 5])}
  end
  return ranges
end

-- Whether each range still has what is to be replaced there. Who edits by hand may have kept stamp
-- and length.
local function are_met(key, ranges)
  for _, range in ipairs(ranges) do
    local found = redis.call('GETRANGE', key, range.start - range.before,
      range.start + range.length + range.after - 1)
    if #found > ${SHORT_GUARD} then found = redis.sha1hex(found) end
    if found ~= range.found then return false end
  end
  return true
end

-- Makes an edit. If the first command is refused, nothing was made,
-- and the refusal is returned; what follows takes no more memory.
local function make(key, ranges)
  local moved, growth = nil, 0
  for i, range in ipairs(ranges) do
    if not moved and #range.text ~= range.length then moved = i end
    growth = growth + #range.text - range.length
  end
  -- What becomes shorter is stored anew, with all ranges: it must not be half made.
  if growth < 0 then moved = 1 end
  if moved then
    -- What is behind the first range with another length moves.
    local start, at, parts = ranges[moved].start, 1, {}
    local old = redis.call('GETRANGE', key, start, '-1')
    for i = moved, #ranges do
      local range = ranges[i]
      parts[#parts + 1] = string.sub(old, at, range.start - start)
      parts[#parts + 1] = range.text
      at = range.start + range.length - start + 1
    end
    parts[#parts + 1] = string.sub(old, at)
    local refused
    if growth >= 0 then
      refused = refusal(redis.pcall('SETRANGE', key, start, table.concat(parts)))
    else
      local head = start > 0 and redis.call('GETRANGE', key, 0, start - 1) or ''
      refused = store(key, head .. table.concat(parts), '${KEEP}')
    end
    if refused then return refused end
  end
  for i = 1, (moved or #ranges + 1) - 1 do
    local refused = refusal(redis.pcall('SETRANGE', key, ranges[i].start, ranges[i].text))
    if refused then return refused end
  end
end

-- What others have added at the end of an object behind which a member was to be added, if nothing
-- else was changed since. `range`: the place where it was to go, and its text.
local function added_since(key, sidecar, log, there, length, expected, expected_length, range)
  local name = range.length == 0 and string.match(range.text, '^,("[^"\\]*"):')
  local changes = name and changes_since(sidecar, log, there, string.format('%.0f', length),
    expected, string.format('%.0f', expected_length), length)
  if not changes then return nil end
  local at, added = range.start, {}
  for i = #changes, 1, -1 do
    local start, count, texts =
      string.match(changes[i], '^%d+ %d+ %d+ %d+ (%d+) 0 (%d+) %d+ %d+ %d+\n()')
    local text = start and string.sub(changes[i], texts, texts + count - 1)
    if tonumber(start) ~= at or string.sub(text, 1, 1) ~= ','
        or string.find(text, name, 1, true) then
      return nil
    end
    added[#added + 1] = text
    at = at + #text
  end
  -- Who edits by hand may have kept stamp and length.
  added = table.concat(added)
  local found = string.sub(range.found, 1, range.before) .. added
    .. '},"last_modified": ' .. there .. '}'
  if redis.call('GETRANGE', key, range.start - range.before, '-1') ~= found then return nil end
  return added
end

-- Adds a member at the end of an object to which others have added since. Nil if that cannot be.
-- `step`: how far the stamp is at least above theirs.
local function add_behind(key, sidecar, writer, number, stamp, it, edit, step)
  local length = redis.call('STRLEN', key)
  local there = stamp_of(redis.call('GETRANGE', key, TAIL, '-1'))
  local added = added_since(key, sidecar, it.log, there, length, edit.expected, edit.length,
    edit.range)
  local after = added and stamp_above(there, stamp, step)
  if not after then return nil end

  -- As an entry of the log: what makes what is there afterwards of a text of that length.
  local function entry_of(stamp_before, length_before, text)
    local digits = length_before - #stamp_before - 1
    return string.format('%s %.0f %s %.0f %.0f 0 %.0f %.0f %.0f %.0f\n%s%s', stamp_before,
      length_before, after, length_before + #text + #after - #stamp_before,
      digits - #'},"last_modified": ', #text, digits, #stamp_before, #after, text, after)
  end
  local text = edit.range.text
  local refused = record(sidecar, writer, number, it.is_new, nil,
      logged(sidecar, it.log, length + #text, entry_of(there, length, text), true))
    or refusal(redis.pcall('SETRANGE', key, edit.range.start + #added,
      text .. '},"last_modified": ' .. after .. '}'))
  if refused then return undo(sidecar, writer, it, refused) end
  return {${ADDED_BEHIND}, entry_of(edit.expected, edit.length, added .. text), there,
    starved_after(sidecar, writer, it.waiting)}
end

local function edit(key, sidecar, writer, number, stamp, payload, instruction)
  local retry, how, length, expected, kind = string.match(instruction,
    '^%S+ (%d*) (%S+) (%d+) (%d+) (%S+)$')
  length = tonumber(length)
  local there = redis.pcall('STRLEN', key)
  if refusal(there) then return {${SERVER_ERROR}, there.err} end
  local it = beside(key, sidecar, writer, number, retry)
  if it.answer then return it.answer end

  local ranges = ranges_in(payload)
  local is_met = there == length and stamp_of(redis.call('GETRANGE', key, TAIL, '-1')) == expected
    and above(stamp, expected) and are_met(key, ranges)
  local step = not it.is_refused and not is_met and it.log and how == '${KEEP}' and tonumber(kind)
  local made = step and add_behind(key, sidecar, writer, number, stamp, it,
    {expected = expected, length = length, range = ranges[1]}, step)
  if made then return made end
  if it.is_refused or not is_met then
    return refuse_change(key, sidecar, writer, number, retry, it,
      {stamp = expected, length = string.format('%.0f', length)})
  end

  local after, parts, texts = length, {}, {}
  for i, range in ipairs(ranges) do
    after = after + #range.text - range.length
    parts[i] = string.format(' %.0f %.0f %.0f', range.start, range.length, #range.text)
    texts[i] = range.text
  end
  local becomes = stamp .. ' ' .. string.format('%.0f', after)
  local wrote = kind == 'list' and becomes .. ' list' or nil
  local entry = string.format('%s %.0f %s%s\n%s', expected, length, becomes, table.concat(parts),
    table.concat(texts))
  local left = how ~= '${KEEP}' and redis.call('PTTL', key)
  -- What has to begin or to cease to expire is stored anew.
  if left and (how == '${NEVER}') ~= (left == -1) then
    return refuse(key, sidecar, writer, number, retry, it)
  end
  local sets_expiry = left and how ~= '${NEVER}'
  local refused = record(sidecar, writer, number, it.is_new, wrote,
      logged(sidecar, it.log, after, entry, tonumber(kind)))
    or sets_expiry and refusal(redis.pcall('PEXPIRE', key, how))
    or make(key, ranges)
  if refused then
    if sets_expiry then redis.pcall('PEXPIRE', key, left) end
    if it.wrote then redis.pcall('HSET', sidecar, 'wrote', it.wrote) end
    return undo(sidecar, writer, it, refused)
  end
  return {${APPLIED}, 1, starved_after(sidecar, writer, it.waiting)}
end
