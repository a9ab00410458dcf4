-- JSON, read once and strictly: what two readers could understand in two ways is refused here, so that no backend sees
-- another document than the one that was classified. RFC 8259, and beyond it: no BOM, no duplicate key, no lone
-- surrogate, no more than 64 levels, no more than 500,000 values (a worker thread serves others meanwhile).
--
-- Part of the text that gateway/lua/__init__.py joins; `classify.lua` says the whole.
--
-- Rules of speed, for all parts (tests/unit/gateway counts the work):
--   * no loop in Lua over the characters of a text; string.find goes from one byte of interest to the next;
--   * only these patterns: plain text, one class (next byte of a kind), an anchored run `^class*`, a fixed length.
--     None of them can backtrack, so that whatever the text is, the time is linear in its length.
local find, byte, sub, gsub, lower, upper = string.find, string.byte, string.sub, string.gsub, string.lower, string.upper
local char, concat, floor = string.char, table.concat, math.floor

-- Stands between two strings of the flattened text: no letter, no digit, no space. Text that holds it is cleaned of it.
local SEPARATOR = "\30"

-- A refusal is an error whose value is a table: `answer` makes the response of it.
local function refuse(status, code, message, param)
  error({ status = status, code = code, message = message, param = param })
end

local function utf8_char(n)
  if n < 0x80 then return char(n) end
  if n < 0x800 then return char(0xC0 + floor(n / 64), 0x80 + n % 64) end
  if n < 0x10000 then return char(0xE0 + floor(n / 4096), 0x80 + floor(n / 64) % 64, 0x80 + n % 64) end
  return char(0xF0 + floor(n / 262144), 0x80 + floor(n / 4096) % 64, 0x80 + floor(n / 64) % 64, 0x80 + n % 64)
end

-- \uD800-\uDFFF come out as three bytes each; a high and a low half that stand side by side are joined afterwards.
local join_surrogates
do
  local function join(a, b, c, d)
    local high = (byte(a) - 0xA0) * 64 + byte(b) - 0x80
    local low = (byte(c) - 0xB0) * 64 + byte(d) - 0x80
    return utf8_char(0x10000 + high * 1024 + low)
  end
  function join_surrogates(text)
    return (gsub(text, "\237([\160-\175])([\128-\191])\237([\176-\191])([\128-\191])", join))
  end
end

-- parse_json(text, every_number) -> what the classifier wants to know of the document:
--   parts, count    every key, string and long number (or every one), decoded, without control characters, in the order of the text
--   nested          those of them which still hold a backslash: perhaps JSON inside a string
--   folding         whether anything outside of ASCII is in them
--   fields          the top level: key -> string, true, false, or the first byte of any other value (a number)
--   numbers         of the top level: key -> number
--   opaque          whether it holds content that cannot be read: images, audio, files, token ids
--   prompts         how many there are in a list called prompt; 1 where it is none
--   hosted          types of the tools that callers do not run themselves
--   reference       what names something that is kept elsewhere, of the items of input; nil where nothing does
--   prompt          the first text of a user's: of messages or input, or of prompt; nil if there is none
-- unescape_json(raw) -> the string whose source, between its quotes, is `raw`
local parse_json, unescape_json
do
  local MAX_DEPTH, MAX_VALUES, NEVER = 64, 500000, 2 ^ 53
  -- The one document which is being read: a parse never yields, and a worker's Lua state has one thread.
  local src, parts, count, nested, folding, fields, numbers, opaque, prompt
  local next_backslash, next_odd, values, every_number, prompts
  local hosted, reference
  local entry_type, entry_name, entry_role -- of the entry of a list being read, as far as they are texts
  local role, said -- of the message being read: whose it is, and its first text
  local path = {} -- path[d]: the key being read at depth d, false inside an array

  local function invalid(at, what)
    refuse(400, "invalid_json", "The body is not valid JSON: " .. what .. " at byte " .. at - 1 .. ".")
  end

  -- Where content may be that only a vision, audio or file reader understands. A schema is not content: a tool may
  -- have a parameter called image_url.
  local SCHEMA = { tools = true, functions = true, response_format = true, text = true, tool_choice = true }
  local KEPT_KEYS = { file_id = true, cached_content = true, cachedContent = true }
  local OPAQUE_KEYS, OPAQUE_TYPES, READABLE_PARTS, READABLE_ITEMS = {}, {}, {}, {}
  local function set(target, names)
    gsub(names, "[%w_]+", function(name) target[name] = true end)
  end
  set(OPAQUE_KEYS, [[image image_url images image_embeds input_image audio audio_url audio_embeds input_audio video
    video_url input_video file_data file_id file_url input_file prompt_embeds encrypted_content cached_content cachedContent]])
  set(OPAQUE_TYPES, [[image_url image_embeds input_image audio_url audio_embeds input_audio video_url input_video
    input_file computer_screenshot]])
  set(READABLE_PARTS, [[text input_text output_text refusal summary_text reasoning_text thinking tool_use tool_result]])
  set(READABLE_ITEMS, [[message function_call function_call_output custom_tool_call custom_tool_call_output reasoning]])

  -- Functions, and texts in a form of the caller's own: what a model asks for comes back to the caller.
  local CLIENT_TOOLS = { ["function"] = true, custom = true }

  local function note_type(name, depth)
    local top = path[1]
    if SCHEMA[top] then return end
    if OPAQUE_TYPES[name] then
      opaque = true
    elseif top == "messages" or top == "input" then
      -- A part or an item of a kind that nobody here knows is one that nobody here has read.
      local of = path[depth - 2]
      if depth >= 5 and path[depth - 1] == false and (of == "content" or of == "output") then
        opaque = opaque or not READABLE_PARTS[name]
      elseif depth == 3 and top == "input" then
        opaque = opaque or not READABLE_ITEMS[name]
      end
    end
  end

  local function skip(i)
    local c = byte(src, i)
    if c == 32 or c == 10 or c == 13 or c == 9 then
      local _, e = find(src, "^[ \t\r\n]*", i + 1)
      i = e + 1
      c = byte(src, i)
    end
    return i, c
  end

  -- From the first byte >= 128 on: well-formed as Unicode's table 3-7 has it.
  local function check_utf8(text, i, at)
    folding = true
    while i do
      local a, b, c, d = byte(text, i, i + 3)
      b, c, d = b or 0, c or 0, d or 0
      if a < 0x80 then
        i = find(text, "[\128-\255]", i)
      elseif a >= 0xC2 and a < 0xE0 and b >= 0x80 and b < 0xC0 then
        i = i + 2
      elseif a >= 0xE0 and a < 0xF0 and b >= (a == 0xE0 and 0xA0 or 0x80) and b < (a == 0xED and 0xA0 or 0xC0)
        and c >= 0x80 and c < 0xC0 then
        i = i + 3
      elseif a >= 0xF0 and a < 0xF5 and b >= (a == 0xF0 and 0x90 or 0x80) and b < (a == 0xF4 and 0x90 or 0xC0)
        and c >= 0x80 and c < 0xC0 and d >= 0x80 and d < 0xC0 then
        i = i + 4
      else
        refuse(400, "invalid_utf8", "The body is not valid UTF-8 (byte " .. at + i - 1 .. ").")
      end
      if i and i > #text then return end
    end
  end

  local function bad_escape()
    refuse(400, "invalid_json", "The body is not valid JSON: an unknown or broken escape in a string.")
  end

  local STRICT = setmetatable(
    { ['"'] = '"', ["\\"] = "\\", ["/"] = "/", b = "\b", f = "\f", n = "\n", r = "\r", t = "\t" },
    { __index = bad_escape })

  local function escape(c, hex)
    if c ~= "u" then return STRICT[c] .. hex end
    if #hex < 4 then bad_escape() end
    return utf8_char(tonumber(hex, 16))
  end

  -- Texts that are not English come as thousands of \uXXXX of a small alphabet: those are remembered, up to a bound.
  local remembered = 0
  local CHARACTERS = setmetatable({}, { __index = function(self, hex)
    local character = utf8_char(tonumber(hex, 16))
    if remembered < 4096 then
      remembered = remembered + 1
      rawset(self, hex, character)
    end
    return character
  end })

  function unescape_json(raw)
    if not find(raw, "\\u", 1, true) then return (gsub(raw, "\\(.)", STRICT)) end
    local text
    if find(raw, "\\\\", 1, true) or find(raw, "\\u005", 1, true) then -- backslashes that escape nothing: one by one
      text = gsub(raw, "\\(.)(%x?%x?%x?%x?)", escape)
    else
      text = gsub(gsub(raw, "\\u(%x%x%x%x)", CHARACTERS), "\\(.)", STRICT)
    end
    if find(text, "[\128-\255]") then
      folding = true
      text = join_surrogates(text)
      if find(text, "\237[\160-\191]") then
        refuse(400, "invalid_unicode", "The body holds half of a surrogate pair (\\ud800 to \\udfff).")
      end
    end
    return text
  end

  -- Only an escape can bring a control character in. Invisible, it would split what a reader sees as one.
  local function without_controls(text)
    return (gsub(gsub(text, "[\11\12]", " "), "[%z\1-\8\14-\31\127]", ""))
  end

  -- i: the opening quote. Returns the byte after the closing one, and the string.
  local function read_string(i)
    local q, escaped = find(src, '"', i + 1, true), false
    while q and next_backslash < q do
      escaped = true
      local _, e = find(src, "^\\*", next_backslash)
      e = e + 1 + (e - next_backslash + 1) % 2 -- the first byte after the run that nothing escapes
      next_backslash = find(src, "\\", e, true) or NEVER
      if q < e then q = find(src, '"', e, true) end
    end
    if not q then invalid(i, "a string without end") end
    local value = sub(src, i + 1, q - 1)
    if next_odd <= i then
      local _, e = find(src, "^[ -~]*", i + 1)
      next_odd = e + 1
    end
    if next_odd < q then
      if find(value, "[%z\1-\31]") then invalid(i, "a control character in a string") end
      folding = true -- DEL is odd, too
      check_utf8(value, find(value, "[\128-\255]", next_odd - i), i)
    end
    local text = value
    if escaped then
      local raw = value
      value = unescape_json(raw)
      text = value
      if find(raw, "\\u00", 1, true) or find(raw, "\\b", 1, true) or find(raw, "\\f", 1, true) then
        text = without_controls(value)
      end
      if find(text, "\\", 1, true) then nested[#nested + 1] = text end
    end
    count = count + 1
    parts[count] = text
    return q + 1, value
  end

  local function digits(i)
    local _, e = find(src, "^%d*", i)
    if e < i then invalid(i, "a broken number") end
    return e + 1
  end

  local function read_number(i)
    local j, c = i, byte(src, i)
    if c == 45 then
      j = j + 1
      c = byte(src, j)
    end
    if c == 48 then j = j + 1 else j = digits(j) end
    c = byte(src, j)
    if c == 46 then
      j = digits(j + 1)
      c = byte(src, j)
    end
    local power = c == 101 or c == 69
    if power then
      c = byte(src, j + 1)
      j = digits((c == 43 or c == 45) and j + 2 or j + 1)
    end
    if every_number or power or j - i >= 9 then -- no identifier that is built in is shorter
      local text = sub(src, i, j - 1)
      count = count + 1
      parts[count] = text
      if power and #text < 64 then -- 4.111e15 is a whole number in disguise
        local n = tonumber(text)
        if n and n % 1 == 0 and n > 1e7 and n < 1e19 then
          count = count + 1
          parts[count] = string.format("%.0f", n)
        end
      end
    end
    return j
  end

  local read_object, read_array

  local LITERALS = { [116] = "true", [102] = "false", [110] = "null" }

  -- Returns the byte after the value and, for the few who ask, a string, a boolean or the first byte of another value.
  local function read_value(i, c, depth)
    values = values + 1
    if values > MAX_VALUES then refuse(400, "too_many_values", "The body holds more than 500000 JSON values.") end
    if c == 34 then return read_string(i) end
    if c == 123 then return read_object(i, depth + 1), c end
    if c == 91 then return read_array(i, depth + 1), c end
    local word = LITERALS[c]
    if word then
      if sub(src, i, i + #word - 1) ~= word then invalid(i, "an unknown word") end
      if c == 110 then return i + 4, c end
      return i + #word, c == 116
    end
    if c and (c == 45 or c >= 48 and c <= 57) then return read_number(i), c end
    if not c then invalid(i, "the text ends too early") end
    invalid(i, "an unexpected character")
  end

  local function enter(depth)
    if depth > MAX_DEPTH then refuse(400, "too_deep", "The body is nested more than 64 levels deep.") end
  end

  function read_array(i, depth)
    enter(depth)
    path[depth] = false
    local tokens = depth <= 3 and (path[1] == "input" or path[1] == "prompt")
    local value, c
    i, c = skip(i + 1)
    if c == 93 then return i + 1 end
    while true do
      if tokens and c and c <= 57 and c ~= 34 then opaque = true end -- token ids: text that only a tokenizer reads
      if depth == 2 and (c == 34 or c == 91) and path[1] == "prompt" then prompts = prompts + 1 end
      if depth == 2 and c ~= 123 and path[1] == "tools" then hosted[#hosted + 1] = "" end
      i, value = read_value(i, c, depth)
      if tokens and depth == 2 and not prompt and type(value) == "string" then prompt = value end
      i, c = skip(i)
      if c == 93 then return i + 1 end
      if c ~= 44 then invalid(i, "a comma or ] is missing") end
      i, c = skip(i + 1)
    end
  end

  local function note_key(key, value, depth)
    if value == nil then return end
    if OPAQUE_KEYS[key] and value ~= 110 and not SCHEMA[path[1]] and (depth > 1 or key == "prompt_embeds") then
      opaque = true
      if KEPT_KEYS[key] then reference = key end
    elseif key == "type" and type(value) == "string" then
      note_type(value, depth)
    end
  end

  -- A message is at depth 3, in a list; its text is its content, or that of a part of it, which is at depth 5.
  local function note_message(key, value, depth)
    if type(value) ~= "string" or path[2] ~= false or path[1] ~= "messages" and path[1] ~= "input" then return end
    if depth == 3 and key == "role" then
      role = value
    elseif depth == 3 and key == "content" or depth == 5 and key == "text" and path[3] == "content" then
      said = said or value
    end
  end

  -- An item that says neither what it is nor whose names one that the provider has. A tool that is of no type and has no name is none of
  -- the caller's.
  local function end_entry(seen)
    if path[1] == "input" and (entry_type == "item_reference" or seen.id and not entry_type and not entry_role) then
      reference = "item_reference"
    elseif path[1] == "tools" and not CLIENT_TOOLS[entry_type or entry_name and not seen.type and "function"] then
      hosted[#hosted + 1] = entry_type or ""
    end
  end

  local function note_entry(key, value)
    if type(value) ~= "string" then return end
    if key == "type" then
      entry_type = value
    elseif key == "name" then
      entry_name = value
    elseif key == "role" then
      entry_role = value
    end
  end

  local function end_message()
    if role == "user" then prompt = said end
    role, said = nil, nil
  end

  function read_object(i, depth)
    enter(depth)
    local seen, key, value, c = {}, nil, nil, nil
    if depth == 3 then entry_type, entry_name, entry_role = nil, nil, nil end
    i, c = skip(i + 1)
    if c == 125 then return i + 1 end
    while true do
      if c ~= 34 then invalid(i, "a key is missing") end
      i, key = read_string(i)
      if seen[key] then refuse(400, "duplicate_key", "The body holds the same key twice in one object.") end
      seen[key] = true
      path[depth] = key
      i, c = skip(i)
      if c ~= 58 then invalid(i, "a colon is missing") end
      i, c = skip(i + 1)
      local from = i
      i, value = read_value(i, c, depth)
      note_key(key, value, depth)
      if depth == 3 then note_entry(key, value) end
      if depth == 1 then
        fields[key] = value
        if value == 45 or type(value) == "number" and value >= 48 and value <= 57 then
          numbers[key] = tonumber(sub(src, from, i - 1))
        end
      elseif not prompt then
        note_message(key, value, depth)
      end
      i, c = skip(i)
      if c == 125 then
        if depth == 3 then
          if path[2] == false then end_entry(seen) end
          if not prompt then end_message() end
        end
        return i + 1
      end
      if c ~= 44 then invalid(i, "a comma or } is missing") end
      i, c = skip(i + 1)
    end
  end

  local function read_document(text)
    src, parts, count, nested, folding, fields, numbers, opaque, prompt = text, {}, 0, {}, false, {}, {}, false, nil
    prompts, role, said = 0, nil, nil
    hosted, reference = {}, nil
    values, next_odd, next_backslash = 0, 0, find(text, "\\", 1, true) or NEVER
    if sub(text, 1, 3) == "\239\187\191" then invalid(1, "a byte order mark") end
    local i, c = skip(1)
    if c ~= 123 then invalid(i, "the body is not a JSON object") end
    i = skip(read_object(i, 1))
    if i <= #text then invalid(i, "text after the document") end
    if not prompt then
      local plain = fields.prompt or fields.input
      prompt = type(plain) == "string" and plain or nil
    end
    return { parts = parts, nested = nested, folding = folding, fields = fields, numbers = numbers, opaque = opaque,
      prompts = prompts > 1 and prompts or 1, hosted = hosted, reference = reference, prompt = prompt }
  end

  function parse_json(text, every)
    every_number = every
    local ok, result = pcall(read_document, text)
    src, parts, nested, fields, numbers, prompt, said = nil, nil, nil, nil, nil, nil, nil -- a worker must not keep the last request
    if not ok then error(result, 0) end
    return result
  end
end
