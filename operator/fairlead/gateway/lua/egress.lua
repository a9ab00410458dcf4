-- The edit of the egress hop: the value of the top-level "model" becomes the name under which this backend knows the
-- model, byte for byte; nothing else is touched (numbers beyond 2^53, order of keys, white space, escapes survive).
--
-- Data: the host of the request, `<model>.<place>.<backend>.<kind>`: its first part is the upstream model's name in hexadecimal
-- digits. It is the name of the gateway's own endpoint that leads here; no caller can set it.
-- And route metadata (namespace envoy.filters.http.lua, or the filter's own name):
--   usage  "true": a streaming request without stream_options gets {"include_usage":true}, so that its tokens are counted
--   access "Local" or "Cloud": to the cloud go fewer headers
--   store  "false": the provider is told to keep nothing, whatever the caller said
--   unasked the paths, between blanks, of endpoints that keep what they get, unless the request says otherwise
--
-- Headers: only those of a list go on. Whatever else a caller sent, and whatever the gateway noted on the request, stays here;
-- so does the query. What a provider wants of headers is set behind this, by its route.
--
-- The classifier has seen the body: JSON, UTF-8, no duplicate keys. Still nothing rests on that here: a body in which not
-- exactly one top-level "model" string is found answers 500. The public name of a model must not reach a backend.
-- Envoy lets a request pass when Lua fails, so everything runs in pcall. Rules of speed: see json.lua.
local find, byte, sub, gsub = string.find, string.byte, string.sub, string.gsub

local TO_CLOUD = {
  [":method"] = true, [":path"] = true, [":authority"] = true, [":scheme"] = true, ["content-type"] = true,
  ["content-length"] = true, ["transfer-encoding"] = true, accept = true, ["anthropic-version"] = true, ["anthropic-beta"] = true,
}
local TO_LOCAL = { ["user-agent"] = true, ["x-request-id"] = true, traceparent = true, tracestate = true }
for name in pairs(TO_CLOUD) do TO_LOCAL[name] = true end

local function fail(why) error({ why = why }) end

local function json_string(text)
  return '"' .. gsub(text, '[%c"\\]', function(c) return string.format("\\u%04x", byte(c)) end) .. '"'
end

-- The upstream model's name.
local function model_of(authority)
  local digits = string.match(authority or "", "^(%x+)%.")
  if not digits or #digits % 2 == 1 then fail("the host names no upstream model") end
  return (gsub(digits, "%x%x", function(hex) return string.char(tonumber(hex, 16)) end))
end

-- The position of the quote that ends the string which begins at i.
local function string_end(s, i)
  local q = find(s, '"', i + 1, true)
  while q do
    local k = q - 1
    while byte(s, k) == 92 do k = k - 1 end
    if (q - k) % 2 == 1 then return q end -- an even number of backslashes: nothing escapes this quote
    q = find(s, '"', q + 1, true)
  end
  fail("a string without end")
end

-- Only what can become "model", "stream" or "stream_options" matters, so ASCII is all that is decoded.
local function key_at(s, i, j)
  local key = sub(s, i + 1, j - 1)
  if #key > 200 or not find(key, "\\", 1, true) then return key end
  return (gsub(key, "\\u00(%x%x)", function(hex) return string.char(tonumber(hex, 16)) end))
end

-- One walk over the structure. Returns where the object opens, where the value of "model" begins and ends (its quotes),
-- whether it streams, whether it has stream_options, and where the value of "store" begins and ends, if it has one.
local function scan(s)
  local i, depth, key, in_key = 1, 0, nil, false
  local open, from, to, stream, options, store_from, store_to
  while true do
    local a = find(s, '["{}%[%],:]', i)
    if not a then fail("the text ends too early") end
    local c = byte(s, a)
    i = a + 1
    if c == 34 then
      local q = string_end(s, a)
      i = q + 1
      if depth == 1 and in_key then
        key = key_at(s, a, q)
      elseif depth == 1 and key == "model" then
        if from then fail("two models") end
        from, to = a, q
      end
    elseif c == 123 or c == 91 then
      depth = depth + 1
      if depth == 1 then
        if c ~= 123 then fail("not an object") end
        open, in_key = a, true
      end
    elseif c == 125 or c == 93 then
      depth = depth - 1
      if depth == 0 then break end
    elseif depth == 1 and c == 44 then
      in_key = true
    elseif depth == 1 then
      in_key = false
      if key == "stream_options" then options = true end
      if key == "store" then
        local _, e = find(s, "^%s*", a + 1)
        store_from, store_to = find(s, "^%a+", e + 1)
      end
      if key == "stream" then
        local _, e = find(s, "^%s*", a + 1)
        stream = sub(s, e + 1, e + 4) == "true"
      end
    end
  end
  if not from then fail("no model") end
  return open, from, to, stream, options, store_from, store_to
end

local function strip(headers, allowed)
  local unwanted = {}
  for name in pairs(headers) do -- nothing may be removed meanwhile
    if not allowed[name] then unwanted[#unwanted + 1] = name end
  end
  for _, name in ipairs(unwanted) do headers:remove(name) end
  local path = headers:get(":path") or ""
  local query = find(path, "?", 1, true)
  if query then headers:replace(":path", sub(path, 1, query - 1)) end
end

local function path_of(headers)
  local path = headers:get(":path") or ""
  return sub(path, 1, (find(path, "?", 1, true) or #path + 1) - 1)
end

-- The text with two stretches replaced, in whichever order they stand.
local function replace(s, from, to, text, other_from, other_to, other)
  if other_from and other_from < from then
    from, to, text, other_from, other_to, other = other_from, other_to, other, from, to, text
  end
  if not other_from then return sub(s, 1, from - 1) .. text .. sub(s, to + 1) end
  return sub(s, 1, from - 1) .. text .. sub(s, to + 1, other_from - 1) .. other .. sub(s, other_to + 1)
end

local function edit(handle)
  local metadata = handle:metadata()
  local usage, access, store = metadata:get("usage"), metadata:get("access"), metadata:get("store")
  local unasked = metadata:get("unasked")
  local keeps = unasked and find(" " .. unasked .. " ", " " .. path_of(handle:headers()) .. " ", 1, true)
  local model = model_of(handle:headers():get(":authority"))
  local body = handle:body() -- waits until all of it is here; what was fetched before is dead behind this line
  local size = body and body:length() or 0
  if size == 0 then fail("no body") end
  local s = body:getBytes(0, size)
  local open, from, to, stream, options, store_from, store_to = scan(s)
  local extra = usage == "true" and stream and not options and '"stream_options":{"include_usage":true},' or ""
  if store ~= "false" then
    store_from = nil
  elseif keeps and not store_from then
    extra = extra .. '"store":false,'
  end
  body:setBytes(sub(s, 1, open) .. extra
    .. sub(replace(s, from, to, json_string(model), store_from, store_to, "false"), open + 1))
  strip(handle:headers(), access == "Local" and TO_LOCAL or TO_CLOUD)
  return size
end

function envoy_on_request(handle)
  local ok, result = pcall(edit, handle)
  if ok then
    if result > 2 ^ 20 then collectgarbage() end -- copies of a large body are given back at once
    return
  end
  handle:logErr("fairlead: the request could not be edited: " .. tostring(type(result) == "table" and result.why or result))
  handle:respond({ [":status"] = "500", ["content-type"] = "application/json" },
    '{"error":{"message":"The gateway could not prepare the request for its backend.","type":"server_error",'
    .. '"param":null,"code":"egress_failed"}}')
end
