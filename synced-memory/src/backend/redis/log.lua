-- What both scripts know: stamps, and the log of changes in a sidecar. LAST and TAIL are given.
--
-- In the sidecar:
--   log    "<first> <next> <bytes>": the numbers of the first entry and of the next one, and how
--          many bytes the entries take together
--   +<n>   the entry with a number that leaves the remainder n when divided by ${LOG_ENTRIES}:
--            "<stamp before> <length before> <stamp after> <length after>", for each range that was
--            replaced " <start> <length> <length after>", and behind a line feed what each of them
--            became
-- An entry says how to make one value of another one, which are named by stamp and length. What
-- somebody else has stored is in no entry: then the last entry names something else than what is
-- there.

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

-- What is in a log, given its field.
local function parts_of(log)
  local first, next, bytes = string.match(log or '', '^(%d+) (%d+) (%d+)$')
  return tonumber(first or 0), tonumber(next or 0), tonumber(bytes or 0)
end

-- The entries, the last one first, that make what is there, with this stamp and length, of what is
-- known; nil if the log does not say, or they have more than `most` bytes.
local function changes_since(sidecar, log, stamp, length, known, known_length, most)
  local first, next = parts_of(log)
  local found, bytes = {}, 0
  for number = next - 1, first, -1 do
    local entry = redis.call('HGET', sidecar, '+' .. number % ${LOG_ENTRIES})
    local before, length_before, after, length_after =
      string.match(entry or '', '^(%d+) (%d+) (%d+) (%d+)')
    if after ~= stamp or length_after ~= length then return nil end
    found[#found + 1] = entry
    bytes = bytes + #entry
    if bytes > most then return nil end
    if before == known and length_before == known_length then return found end
    if not above(before, known) then return nil end
    stamp, length = before, length_before
  end
end
