-- What both texts of the public listener say of a request: an OpenAI-shaped error as the response, or where it goes.
--
-- settle(set, outcome, header)  what became of it, into dynamic metadata
-- answer(handle, failure)  failure: {status, code, message, param?}, or whatever else an error was
local function json_string(text)
  return '"' .. string.gsub(text, '[%c"\\]', function(c) return string.format("\\u%04x", string.byte(c)) end) .. '"'
end

local ERROR_TYPES = { [401] = "authentication_error", [403] = "permission_error", [500] = "server_error" }

local function answer(handle, failure)
  if type(failure) ~= "table" then
    handle:logErr("fairlead: the classifier failed: " .. tostring(failure)) -- position and kind, never the text read
    failure = { status = 500, code = "classifier_failed", message = "The gateway could not classify the request." }
  end
  local body = '{"error":{"message":' .. json_string(failure.message)
    .. ',"type":"' .. (ERROR_TYPES[failure.status] or "invalid_request_error")
    .. '","param":' .. (failure.param and json_string(failure.param) or "null")
    .. ',"code":' .. json_string(failure.code) .. "}}"
  handle:respond({ [":status"] = tostring(failure.status), ["content-type"] = "application/json" }, body)
end

local MARK = "checked"

local RULES = {
  default = "the rules of this route",
  floor = "a floor of this route",
  opaque = "content that cannot be read",
  unchecked = "text that its patterns could not look at",
}

-- Writes what becomes of a request by `set`. Returns how a denial of it begins, nil where it may go on: class and rule, never what
-- was found.
local function settle(set, outcome, header)
  local class, rule = outcome.class, outcome.rule
  set("class", class)
  set("rule", rule)
  if outcome.verdict then set("verdict", outcome.verdict) end
  if not outcome.chain then
    local by = rule == "header" and "the header " .. header or RULES[rule] or "the detector " .. rule
    return "This request is classified " .. class .. " by " .. by .. ". "
  end
  set("chain", outcome.chain)
  set("mark", MARK)
end
