-- Health of fairlead.dev resources for Argo CD: the kstatus conditions Ready, Reconciling and Stalled, and
-- observedGeneration, in the order in which kstatus reads them, so that Argo CD, Flux and `helm --wait` agree.
local health = {status = "Progressing", message = "Waiting for the operator to look at it"}
local status = obj.status
if status == nil or status.observedGeneration == nil or status.observedGeneration < 0 then
  return health
end
if obj.metadata.generation ~= nil and status.observedGeneration < obj.metadata.generation then
  health.message = "Waiting for generation " .. tostring(obj.metadata.generation) .. " to be observed"
  return health
end
local conditions = {}
for _, condition in ipairs(status.conditions or {}) do
  conditions[condition.type] = condition
end
local function is_true(condition)
  return condition ~= nil and condition.status == "True"
end
if is_true(conditions.Stalled) then
  return {status = "Degraded", message = conditions.Stalled.message}
end
if is_true(conditions.Reconciling) then
  health.message = conditions.Reconciling.message
  return health
end
if obj.spec ~= nil and obj.spec.suspend == true then
  return {status = "Suspended", message = "spec.suspend is true"}
end
if is_true(conditions.Ready) then
  return {status = "Healthy", message = conditions.Ready.message}
end
if conditions.Ready ~= nil then
  health.message = conditions.Ready.message
end
return health
