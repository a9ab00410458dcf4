-- Settles the class of a request in whose text the RBAC filter before it has looked for users' patterns. The head of classify.lua says
-- what it reads; a request of which nothing is pending is none of its business.
--
-- RBAC gives the result of its shadow rules in dynamic metadata: "shadow_engine_result", and "shadow_effective_policy_id" if a policy
-- matched, the first in the order of their names. Such a name is `<a digit>.<class>.<detector>.<digest>`, the highest class first.
-- Where there is no result at all, nobody has looked, and the class is the highest (rule "unchecked"). No user's text is in here.
local NAME = "^%d%.(%a+)%.([^.]+)%.%x+$"
local HIGHEST = "Restricted"

local function read(pending, key, finding)
  local text = pending[key]
  if type(text) ~= "string" then return nil end
  local class, rule, verdict, chain = string.match(text, "^([^\n]+)\n([^\n]*)\n([^\n]*)\n([^\n]*)$")
  if not class then return nil end
  return {
    class = class,
    rule = rule ~= "" and rule or finding,
    verdict = verdict ~= "" and verdict or nil,
    chain = chain ~= "" and chain or nil,
  }
end

local function find_outcome(pending, result)
  local state, name = result and result.shadow_engine_result, result and result.shadow_effective_policy_id
  if state == "denied" and type(name) == "string" then
    local class, detector = string.match(name, NAME)
    local outcome = class and read(pending, class, detector)
    if outcome then return outcome end
  elseif state == "allowed" and (name == nil or name == "") then
    local outcome = read(pending, "own", "default")
    if outcome then return outcome end
  end
  return read(pending, HIGHEST, "unchecked")
end

local function check(handle)
  local metadata = handle:streamInfo():dynamicMetadata()
  local pending = metadata:get("fairlead.pending")
  if not pending then return end
  metadata:set("fairlead.text", "text", "") -- a stream may last for long, and the text is nobody's business any more
  local outcome = find_outcome(pending, metadata:get("envoy.filters.http.rbac"))
  if not outcome then error("nothing is pending for the class") end
  local denial = settle(function(key, value) metadata:set("fairlead", key, value) end, outcome, pending.header)
  if denial then error({ status = 403, code = "data_class_denied", message = denial .. pending.takes }) end
end

function envoy_on_request(handle)
  local ok, failure = pcall(check, handle)
  if not ok then answer(handle, failure) end
end
