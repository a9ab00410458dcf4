-- The classifier: what runs on the gateway's public listener for each POST, before anything is routed. It decides
-- nothing by itself. It reads the body once (json.lua), strictly, looks for what the route's detectors describe
-- (fold.lua, detect.lua), and looks the rest up in tables that Python compiled from policy/. Users' text is data here.
--
-- Data: `filter_context` of LuaPerRoute on the virtual host (RDS), with one key, "policy": text that is JSON. Envoy copies the
-- whole context each time when Lua asks for it, and a text is copied hundreds of times faster than a structure of hundreds of
-- models. Lua reads the text once per worker, and knows it again afterwards. In it:
--   header           name of the header in which a caller declares a class
--   classes          all classes, from the lowest to the highest
--   endpoints        the paths that exist, for instance "/v1/chat/completions"
--   anonymous        profile of a caller without a name (absent: 401)
--   consumers        name, as api_key_auth wrote it into x-fairlead-consumer -> profile
--   known            profile of a caller with a name that is not among them (absent: 403)
--   detectors        [{name, class, builtin?, keywords?}], builtin one of Email IBAN PaymentCard Phone PrivateKey SSN Secrets
--   patterns         the highest class of users' RE2 patterns (absent: there are none)
--   default          class of a request that nothing classified: only to tell it from what a floor raised (absent: not told apart)
--   store            present: requests may refer to what a provider keeps, and have it keep something
--   hosted           types of tools that run outside of the gateway and may be asked for (absent: none)
--   opaque           class of content that cannot be read: images, audio, files, token ids (absent: as if it were not there)
--   verdicts         profile -> "declared|detected" -> verdict; declared is "-" without a header, detected the lowest class
--                    when nothing was found; a pair that is not there is denied
--   classes_of       verdict -> class of the request; and chain -> class of a request that goes there, which goes before
--   models           name -> verdict -> id of the chain of targets; a verdict that is not there has no permitted target
--   affinities       model -> {header} whose value says which requests belong on one pod, or {prefix}: of how many characters at the
--                    beginning of the prompt (absent: no model has any)
--   tokens           profile -> the most tokens that one request of it may be charged with (absent: none are counted)
-- Ids of profiles, verdicts and chains are any text but "" and "-". What is before the first dot of a chain names its route: those
-- of the same places for several classes share one.
--
-- Result: dynamic metadata "fairlead", all text: class, rule (name of a detector, "header", "default", "floor", "opaque" or
-- "unchecked"), verdict, model, consumer, stream ("true", "false"), affinity (16 hexadecimal digits, alike for requests that belong on
-- one pod; or absent); and of a request that may go on: chain (its route), mark ("checked"), and where its tokens are limited: tokens,
-- limited ("true"), wait (seconds in which a caller may ask for as many). Without `chain` no route matches, without `mark` none may
-- answer. A request that is refused gets an OpenAI-shaped error from here.
--
-- With patterns the class is settled later. Envoy's RBAC filter matches them in its shadow rules, with the text that is written
-- into dynamic metadata "fairlead.text": key "text", all layers, folded, a line for each string. What becomes of the request goes into
-- "fairlead.pending", for each class that may be found: class, rule, verdict and chain in a line each; "takes" is for denials. settle.lua
-- takes the one that holds. Nothing of it is written where no pattern could change anything, and text of more than a mebibyte
-- is not: it counts as if the highest of the patterns had been found in it (rule "unchecked").
--
-- GET /v1/models gets chain "models", and its profile as `stream`: which models it is shown depends on that. Whatever else is
-- no POST is answered with 404, as paths are that do not exist: clients are to learn that it is not there, not that it is forbidden.
--
-- Errors inside: Envoy lets a request pass when Lua fails, so everything runs in pcall, and a failure answers 500.
local ceil = math.ceil

-- Policy ----------------------------------------------------------------------------------------------------------------

-- A small reader for the policy's own JSON, which Python wrote: objects, arrays and strings only.
local function read_policy(text)
  local read
  local function skip(i)
    local _, e = find(text, "^%s*", i)
    return e + 1, byte(text, e + 1)
  end
  local function read_text(i)
    local e = i
    repeat
      e = find(text, '["\\]', e + 1)
      local c = byte(text, e)
      if c == 92 then e = e + 1 end
    until c == 34
    return e + 1, unescape_json(sub(text, i + 1, e - 1))
  end
  local function read_items(i, close, put)
    local c
    i, c = skip(i + 1)
    while c ~= close do
      i = put(i)
      i, c = skip(i)
      if c == 44 then i, c = skip(i + 1) elseif c ~= close then error("the policy is broken") end
    end
    return i + 1
  end
  function read(i)
    local c
    i, c = skip(i)
    local result = {}
    if c == 34 then return read_text(i) end
    if c == 91 then
      return read_items(i, 93, function(k)
        k, result[#result + 1] = read(k)
        return k
      end), result
    end
    if c ~= 123 then error("the policy is broken") end
    return read_items(i, 125, function(k)
      local key
      k, key = read_text(k)
      k = skip(k)
      k, result[key] = read(k + 1)
      return k
    end), result
  end
  local _, policy = read(1)
  return policy
end

local function compile_policy(text)
  local policy = read_policy(text)
  policy.ranks, policy.named, policy.paths = {}, {}, {}
  for rank, class in ipairs(policy.classes) do
    policy.ranks[class] = rank
    policy.named[lower(class)] = class
  end
  for _, path in ipairs(policy.endpoints) do policy.paths[path] = true end
  if policy.opaque and not policy.ranks[policy.opaque] then error("opaque is no class") end
  if policy.patterns and not policy.ranks[policy.patterns] then error("the class of patterns is none") end
  policy.lowest, policy.header = policy.classes[1], lower(policy.header)
  policy.detectors = compile_detectors(policy.detectors or {}, policy.ranks)
  return policy
end

-- The text itself is the key: a changed policy can never meet an old table. While routes change there are two of them.
local policies, policy_count = {}, 0

local function policy_of(handle)
  local text = handle:filterContext():get("policy")
  local policy = policies[text]
  if not policy then
    policy = compile_policy(text)
    if policy_count >= 4 then policies, policy_count = {}, 0 end
    policies[text], policy_count = policy, policy_count + 1
  end
  return policy
end

-- The request -----------------------------------------------------------------------------------------------------------

-- Envoy's headers:get returns no value at all for a header that is not there.
local function header_of(headers, name)
  local value = headers:get(name)
  return value
end

local function path_of(headers)
  local path = header_of(headers, ":path") or ""
  local query = find(path, "?", 1, true)
  return query and sub(path, 1, query - 1) or path
end

local function check_form(headers, policy)
  if not policy.paths[path_of(headers)] then refuse(404, "unknown_endpoint", "This gateway has no such endpoint.") end
  local encoding = header_of(headers, "content-encoding")
  if encoding and lower(encoding) ~= "identity" then
    refuse(415, "unsupported_content_encoding", "The body must not be compressed: send it without content-encoding.")
  end
  local kind = gsub(lower(header_of(headers, "content-type") or ""), "[ \t\"]", "")
  if kind ~= "application/json" and kind ~= "application/json;charset=utf-8" and kind ~= "application/json;" then
    refuse(415, "unsupported_content_type", "The body must be JSON in UTF-8, with content-type: application/json.")
  end
end

local function declared_class(headers, policy)
  local name = policy.header
  local value = header_of(headers, name)
  if value == nil then return "-" end
  local class = headers:getNumValues(name) == 1 and policy.named[lower(value)]
  if not class then
    refuse(400, "invalid_data_class", "The header " .. name .. " must be given once, with one of: "
      .. concat(policy.classes, ", ") .. ".")
  end
  return class
end

local function profile_of(headers, policy)
  local consumer = header_of(headers, "x-fairlead-consumer") or ""
  if consumer == "" then
    if policy.anonymous then return policy.anonymous, "" end
    refuse(401, "invalid_api_key", "This gateway needs an API key.")
  end
  local profile = (policy.consumers or {})[consumer] or policy.known
  if not profile then refuse(403, "no_role", "This caller has no role on this route.") end
  return profile, consumer
end

-- Beyond this size the copies of one request are given back at once, not when Lua's collector comes by.
local LARGE = 2 ^ 20
local is_large

local function body_of(handle)
  local body = handle:body() -- waits until all of it is here; what was fetched before is dead behind this line
  local size = body and body:length() or 0
  if size == 0 then refuse(400, "invalid_json", "The body is empty.") end
  is_large = size > LARGE
  return body:getBytes(0, size)
end

-- What patterns are matched with: all layers. A string begins a line, so that ^ and $ mean its ends, and a NUL ends no text.
local MAX_PATTERN_TEXT = 2 ^ 20

-- Returns rank and name of the highest finding, or nil; and the text that patterns may find more in, or nil.
local function classify(policy, document)
  local floor, name = 1, nil
  if document.opaque and policy.opaque then floor, name = policy.ranks[policy.opaque], "opaque" end
  local text = concat(document.parts, SEPARATOR)
  local layer = concat(document.nested, SEPARATOR)
  document.parts, document.nested = nil, nil
  if is_large then collectgarbage() end
  local layers, size = {}, 0
  for depth = 0, 3 do
    if depth > 0 then
      text = loosen(layer)
      layer = text
    end
    local folded = (document.folding or depth > 0) and fold(text) or text
    local rank, detector = detect(policy.detectors, folded, floor)
    if rank then floor, name = rank, detector end
    if policy.patterns then
      size = size + #folded + 1
      layers[depth + 1] = size <= MAX_PATTERN_TEXT and folded or ""
    end
    if not find(layer, "\\", 1, true) then break end
  end
  local published
  if policy.patterns and policy.ranks[policy.patterns] > floor then
    if size > MAX_PATTERN_TEXT then
      floor, name = policy.ranks[policy.patterns], "unchecked"
    else
      published = gsub(concat(layers, "\n"), "[%z\30]", "\n")
    end
  end
  return name and floor, name, published
end

local function model_of(fields, policy)
  local model, stream = fields.model, fields.stream
  if type(model) ~= "string" or model == "" then
    refuse(400, "invalid_model", "The body must name a model: a string that is not empty.", "model")
  end
  if stream ~= nil and type(stream) ~= "boolean" then
    refuse(400, "invalid_stream", "stream must be true or false.", "stream")
  end
  local chains = policy.models[model]
  if not chains then
    local shown = #model <= 64 and not find(model, "[^%w%._:/@%-]") and " " .. model or ""
    refuse(404, "model_not_found", "The model" .. shown .. " does not exist or you do not have access to it.", "model")
  end
  return model, stream == true and "true" or "false", chains
end

-- What a provider keeps, nobody here can read; what a tool of its own does with a request, nobody here can tell. Neither is let through
-- unless the route lists it. 110: null. 123: an object.
local REFERENCES = {
  "previous_response_id", "conversation", "container", "cached_content", "cachedContent", "file_id", "tool_resources", "preset",
}
-- Answers that are fetched later: the provider keeps them until then.
local LATER = { "background", "deferred" }
local TOOL_FIELDS = {
  web_search_options = "web_search", search_parameters = "web_search", search_settings = "web_search", compound_custom = "compound_custom",
  plugins = "plugins", mcp_servers = "mcp", data_sources = "data_sources", models = "models",
}

local function refuse_reference(name)
  refuse(400, "state_at_provider", name .. " refers to what a provider keeps, which this gateway cannot read. Next: send all of it with the"
    .. " request, or have dataPolicy.allowStore set in the LLMRoute.", name)
end

local function check_kept(policy, document)
  local fields = document.fields
  local store = fields.store
  if store ~= nil and store ~= 110 and type(store) ~= "boolean" then
    refuse(400, "invalid_store", "store must be true or false.", "store")
  end
  if policy.store then return end
  for _, name in ipairs(REFERENCES) do
    if fields[name] ~= nil and fields[name] ~= 110 then refuse_reference(name) end
  end
  if fields.prompt == 123 then refuse_reference("prompt") end
  if document.reference then refuse_reference(document.reference) end
  for _, name in ipairs(LATER) do
    if fields[name] ~= nil and fields[name] ~= 110 and fields[name] ~= false then
      refuse(400, "state_at_provider", name .. " has a provider keep the answer. Next: leave it out, and stream the answer.", name)
    end
  end
end

local function check_tool(policy, name)
  for _, allowed in ipairs(policy.hosted or {}) do
    if name == allowed then return end
  end
  local shown = name ~= "" and #name <= 64 and not find(name, "[^%w_]") and " of type " .. name or ""
  refuse(400, "hosted_tool", "Tools" .. shown .. " run where this gateway does not see what they do. Next: leave them out, or have them listed"
    .. " in dataPolicy.hostedTools of the LLMRoute.", "tools")
end

local function check_tools(policy, document)
  local tools = document.fields.tools
  if tools ~= nil and tools ~= 110 and tools ~= 91 then refuse(400, "invalid_tools", "tools must be a list.", "tools") end
  for _, name in ipairs(document.hosted) do check_tool(policy, name) end
  for field, name in pairs(TOOL_FIELDS) do
    local value = document.fields[field]
    if value ~= nil and value ~= 110 then check_tool(policy, name) end
  end
end

-- Sixteen hexadecimal digits: two polynomials over the bytes, modulo primes below 2^32. Not the text itself, which need not be
-- UTF-8 and is nobody's business further on. A text has at most what a header may have, or the beginning of a prompt.
local function digest(text)
  local a, b = 1, 1
  for i = 1, #text do
    local c = byte(text, i) + 1
    a, b = (a * 257 + c) % 4294967291, (b * 65599 + c) % 4294967279
  end
  return string.format("%04x%04x%04x%04x", floor(a / 65536), a % 65536, floor(b / 65536), b % 65536)
end

-- The first `count` characters of a text in UTF-8.
local function beginning(text, count)
  if #text <= count then return text end
  if not find(text, "[\128-\255]") then return sub(text, 1, count) end
  local i = 1
  for _ = 1, count do
    i = find(text, "[^\128-\191]", i + 1)
    if not i then return text end
  end
  return sub(text, 1, i - 1)
end

-- No engine keeps the beginning of what it only embeds.
local PROMPTLESS = { ["/v1/embeddings"] = true, ["/v1/rerank"] = true }

local function affinity_of(headers, policy, model, document)
  local affinity = (policy.affinities or {})[model]
  if not affinity then return nil end
  local value
  if affinity.header then
    value = header_of(headers, affinity.header)
  elseif document.prompt and not PROMPTLESS[path_of(headers)] then
    value = beginning(document.prompt, tonumber(affinity.prefix))
  end
  return value and value ~= "" and digest(value) or nil
end

-- What a request is charged with: a token for each four bytes of the body, and the most that it lets the model answer.
local OUTPUTS = { "max_tokens", "max_completion_tokens", "max_output_tokens" }
local COPIES = { "n", "best_of" }
local MOST = 1e9 -- what Envoy charges at most

local function highest(document, names, least)
  local found = least
  for _, name in ipairs(names) do
    local said = document.fields[name]
    local number = document.numbers[name]
    -- 110: null. A text would be a number to some backends.
    if said ~= nil and said ~= 110 and not number then refuse(400, "invalid_" .. name, name .. " must be a number.", name) end
    if number and number > found then found = number < MOST and ceil(number) or MOST end
  end
  return found
end

local function charge(policy, profile, document, size)
  local limit = tonumber((policy.tokens or {})[profile])
  if not limit then return end
  local prompt = ceil(size / 4)
  local output = highest(document, OUTPUTS, 0) * highest(document, COPIES, 1) * document.prompts
  if prompt + output > limit then
    refuse(400, "request_too_large_for_limit", "Request too large for your limit of tokens per minute: limit "
      .. string.format("%.0f", limit) .. ", requested " .. string.format("%.0f", prompt + output) .. " (" .. prompt
      .. " for the prompt, " .. string.format("%.0f", output) .. " for the answer). Next: shorten the prompt, or ask for a shorter answer.")
  end
  return string.format("%.0f", prompt + output), string.format("%.0f", ceil(60 * (prompt + output) / limit))
end

-- `own`: what becomes of the request if that is known already.
local function set_charge(set, policy, profile, document, size, own)
  if own and (policy.tokens or {})[profile] then
    set("class", own.class)
    set("rule", own.rule)
  end
  local tokens, wait = charge(policy, profile, document, size)
  if not tokens then return end
  set("tokens", tokens)
  set("limited", "true")
  set("wait", wait)
end

-- What this caller may send to this model, for a denial.
local function takes_of(policy, profile, model, chains)
  local taken, list = {}, {}
  for _, verdict in pairs(policy.verdicts[profile] or {}) do
    local chain = chains[verdict]
    if chain then taken[policy.classes_of[chain] or policy.classes_of[verdict]] = true end
  end
  for _, name in ipairs(policy.classes) do
    if taken[name] then list[#list + 1] = name end
  end
  return "Of you, the model " .. model .. " takes " .. (#list > 0 and concat(list, ", ") or "nothing") .. "."
end

local function setter(handle)
  local metadata = handle:streamInfo():dynamicMetadata()
  return function(key, value) metadata:set("fairlead", key, value) end
end

local function list_models(handle, headers)
  local profile, consumer = profile_of(headers, policy_of(handle))
  local set = setter(handle)
  set("consumer", consumer)
  set("chain", "models")
  set("stream", profile)
  set("mark", MARK)
end

-- Class, rule, verdict and chain of a request in which `finding` was found, of this rank (both nil: nothing was). Without a chain
-- it is denied.
local function outcome_of(policy, verdicts, chains, declared, rank, finding)
  local detected = rank and policy.classes[rank] or policy.lowest
  local verdict = verdicts[declared .. "|" .. detected]
  local chain = verdict and chains[verdict]
  local class = chain and policy.classes_of[chain] or verdict and policy.classes_of[verdict]
  -- A verdict's class is one of what was detected, declared, the default and floors: what is none of the others is a floor.
  local otherwise = class and policy.default and class ~= policy.default and "floor" or "default"
  if not class then -- denied without a verdict: what is known of it says its class
    class = (policy.ranks[declared] or 0) > policy.ranks[detected] and declared or detected
  end
  local rule = rank and detected == class and finding or declared == class and "header" or otherwise
  local route = chain and sub(chain, 1, (find(chain, ".", 1, true) or #chain + 1) - 1)
  return { class = class, rule = rule, verdict = verdict, chain = route }
end

-- One outcome for each class that a pattern may have: those that are no higher than what was found change nothing.
local function publish(handle, policy, text, own, outcome, takes)
  local metadata = handle:streamInfo():dynamicMetadata()
  for rank, class in ipairs(policy.classes) do
    local one = outcome(rank)
    metadata:set("fairlead.pending", class, concat({ one.class, one.rule, one.verdict or "", one.chain or "" }, "\n"))
  end
  metadata:set("fairlead.pending", "own", concat({ own.class, own.rule, own.verdict or "", own.chain or "" }, "\n"))
  metadata:set("fairlead.pending", "header", policy.header)
  metadata:set("fairlead.pending", "takes", takes)
  metadata:set("fairlead.text", "text", text)
end

local function check(handle)
  local headers = handle:headers()
  local method = header_of(headers, ":method")
  if method == "GET" and path_of(headers) == "/v1/models" then return list_models(handle, headers) end
  if method ~= "POST" then refuse(404, "unknown_endpoint", "This gateway has no such endpoint.") end
  local policy = policy_of(handle)
  check_form(headers, policy)
  local declared = declared_class(headers, policy)
  local profile, consumer = profile_of(headers, policy)

  local body = body_of(handle)
  local size, document = #body, parse_json(body, policy.patterns ~= nil)
  body = nil
  local model, stream, chains = model_of(document.fields, policy)
  check_kept(policy, document)
  check_tools(policy, document)
  local rank, finding, text = classify(policy, document)
  local verdicts = policy.verdicts[profile] or {}
  local own = outcome_of(policy, verdicts, chains, declared, rank, finding)

  local set = setter(handle)
  set("model", model)
  set("stream", stream)
  set("consumer", consumer)
  local affinity = affinity_of(handle:headers(), policy, model, document)
  if affinity then set("affinity", affinity) end
  if text then
    set_charge(set, policy, profile, document, size)
    return publish(handle, policy, text, own, function(found)
      if found <= (rank or 1) then return own end
      return outcome_of(policy, verdicts, chains, declared, found, "")
    end, takes_of(policy, profile, model, chains))
  end
  if own.chain then set_charge(set, policy, profile, document, size, own) end
  local denial = settle(set, own, policy.header)
  if denial then refuse(403, "data_class_denied", denial .. takes_of(policy, profile, model, chains)) end
end

function envoy_on_request(handle)
  is_large = false
  local ok, failure = pcall(check, handle)
  if is_large then collectgarbage() end
  if not ok then answer(handle, failure) end
end
