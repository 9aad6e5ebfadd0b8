local redis = (function()
  local server, declared = redis, {}
  for _, key in ipairs(KEYS) do declared[key] = true end
  local function refusal(command, key)
    if key and not declared[key] then
      return {err = 'ERR script tried accessing undeclared key, key: ' .. key .. ', in ' .. command}
    end
  end
  return setmetatable({
    call = function(command, key, ...)
      local refused = refusal(command, key)
      if refused then error(refused.err) end
      return server.call(command, key, ...)
    end,
    pcall = function(command, key, ...)
      return refusal(command, key) or server.pcall(command, key, ...)
    end,
  }, {__index = server})
end)()
