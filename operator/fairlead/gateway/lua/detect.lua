-- The detectors. Each starts from something rare (an "@", a "+", a prefix of a key, two digits in a row) and looks at a
-- bounded piece of text around it; runs that have no bound are looked at once, because the search goes on behind them.
--
-- Texts are folded (fold.lua). What a detector says is yes or no; what it found never leaves this file.
local detect -- detect(policy, text, floor) -> rank and name of the highest detector above rank `floor`, or nil
local compile_detectors -- compile_detectors(list, ranks) -> what `detect` takes
do
  local function is_digit(c) return c ~= nil and c >= 48 and c <= 57 end
  local function is_upper(c) return c ~= nil and c >= 65 and c <= 90 end
  local function is_lower(c) return c ~= nil and c >= 97 and c <= 122 end
  local function is_letter(c) return is_upper(c) or is_lower(c) end
  local function before(text, i) -- byte(text, 0) would be no value at all, byte(text, -1) the last one
    if i > 1 then return (byte(text, i - 1)) end
    return nil
  end

  -- Keywords ----------------------------------------------------------------------------------------------------------
  -- Whole words, whatever their case. Spaces, "_" and "-" between the words of a keyword are one, many or none:
  -- credit_card finds "Credit  Card", "credit-card" and "creditCard". Digits, "_" and the hump of camelCase end a word,
  -- and a plural s belongs to it: password finds DB_PASSWORD, userPassword, password1, Passwords; not passwordless.

  local function compile_keyword(keyword)
    local words = {}
    gsub(lower(fold(keyword)), "[^%s_%-]+", function(word) words[#words + 1] = word end)
    if #words == 0 then error("a keyword without a letter") end
    return words
  end

  local function starts_word(text, i)
    local c, p = byte(text, i), before(text, i)
    if is_digit(c) then return not is_digit(p) end
    return not is_letter(c) or not is_letter(p) or is_upper(c) and is_lower(p)
  end

  local function ends_word(text, i)
    local c, n, after = byte(text, i, i + 2)
    if is_digit(c) then return not is_digit(n) end
    if not is_letter(c) or not is_letter(n) then return true end
    return is_lower(c) and is_upper(n) or (n == 115 or n == 83) and not is_letter(after)
  end

  local function has_keyword(text, low, words)
    local first = words[1]
    local p = find(low, first, 1, true)
    while p do
      local e = p + #first - 1
      for k = 2, #words do
        local _, gap = find(low, "^[%s_%-]*", e + 1)
        e = gap + #words[k]
        if sub(low, gap + 1, e) ~= words[k] then
          e = nil
          break
        end
      end
      if e and starts_word(text, p) and ends_word(text, e) then return true end
      p = find(low, first, p + 1, true)
    end
    return false
  end

  -- E-mail addresses --------------------------------------------------------------------------------------------------

  local function has_email(text)
    local p = find(text, "@", 1, true)
    while p do
      local c = before(text, p)
      local _, e = find(text, "^[%w%.%-\128-\255]*", p + 1)
      if c and e > p + 3 and (is_letter(c) or is_digit(c) or c >= 128 or c == 46 or c == 95 or c == 45 or c == 43) then
        local domain = sub(text, p + 1, e < p + 255 and e or p + 255)
        if find(domain, "^[%w\128-\255]") and find(domain, "[%w\128-\255]%.[%a\128-\255][%a\128-\255]") then return true end
      end
      p = find(text, "@", e + 1, true)
    end
    return false
  end

  -- Phone numbers in international form: "+", then 9 to 15 digits, separated or not -------------------------------------

  local function is_international(text, p)
    local c = byte(text, p + 1)
    if c ~= 40 and not (is_digit(c) and c ~= 48) then return false end
    local window = sub(text, p + 1, p + 32)
    if find(window, "^%d%d%d%d%-%d%d%-%d%d") then return false end -- a date in a diff
    local i, total = 1, 0
    for _ = 1, 8 do
      local _, gap = find(window, "^[ %-%.%(%)/]*", i)
      if gap - i >= 3 then return false end
      local _, e = find(window, "^%d*", gap + 1)
      total = total + e - gap
      if total > 15 or e == gap then return false end
      if total >= 9 then return not is_digit(byte(text, p + e + 1)) end
      i = e + 1
    end
    return false
  end

  local function has_international(text)
    local p = find(text, "+", 1, true)
    while p do
      local c = before(text, p)
      if not (is_letter(c) or is_digit(c) or c == 41 or c == 43) and is_international(text, p) then return true end
      p = find(text, "+", p + 1, true)
    end
    return false
  end

  -- What begins with digits: one walk over the runs of two and more -----------------------------------------------------

  -- (NXX) NXX-XXXX and its kin: N is 2 to 9, no NXX is N11. Ten digits in one run are taken for something else.
  local function is_nanp(text, a, e)
    local _, stop = find(text, "^[%-%. /]%d%d%d[%-%. ]%d%d%d%d", e + 1)
    if not stop and before(text, a) == 40 then _, stop = find(text, "^%)[%- ]?%d%d%d[%-%. ]%d%d%d%d", e + 1) end
    if not stop or is_digit(byte(text, stop + 1)) then return false end
    local area, exchange = sub(text, a, e), sub(text, stop - 7, stop - 5)
    return byte(area) > 49 and byte(exchange) > 49 and sub(area, 2) ~= "11" and sub(exchange, 2) ~= "11"
  end

  local function is_ssn_number(area, group, serial)
    return area ~= "000" and area ~= "666" and byte(area) ~= 57 and group ~= "00" and serial ~= "0000"
  end

  local function is_ssn(text, a, e)
    local _, stop = find(text, "^[%-%. ]%d%d[%-%. ]%d%d%d%d", e + 1)
    if not stop or is_digit(byte(text, stop + 1)) or byte(text, e + 1) ~= byte(text, e + 4) then return false end
    return is_ssn_number(sub(text, a, e), sub(text, e + 2, e + 3), sub(text, stop - 3, stop))
  end

  local SSN, SOCIAL_SECURITY = { "ssn" }, { "social", "security" }

  -- Nine digits in one run are a number like any other, unless what stands before them says what they are.
  local function is_bare_ssn(text, a, e)
    local context = sub(text, a > 48 and a - 48 or 1, a - 1)
    local low = lower(context)
    return (has_keyword(context, low, SSN) or has_keyword(context, low, SOCIAL_SECURITY))
      and is_ssn_number(sub(text, a, a + 2), sub(text, a + 3, a + 4), sub(text, a + 5, e))
  end

  -- First two digits -> lengths of the payment networks. What begins otherwise (a time in milliseconds) is no card.
  local CARDS = {}
  local function networks(list, ...)
    local lengths = {}
    for k = 1, select("#", ...) do lengths[select(k, ...)] = true end
    gsub(list, "%d+", function(prefix) CARDS[prefix] = lengths end)
  end
  networks("40 41 42 43 44 45 46 47 48 49", 13, 16, 19)
  networks("22 23 24 25 26 27 51 52 53 54 55", 16)
  networks("34 37", 15)
  networks("30 36 38 39", 14, 15, 16, 17, 18, 19)
  networks("35 81 82", 16, 17, 18, 19)
  networks("50 56 57 58 60 61 62 63 64 65 66 67 68 69", 13, 14, 15, 16, 17, 18, 19)

  local function is_card(number)
    local lengths, total, double = CARDS[sub(number, 1, 2)], 0, false
    if not lengths or not lengths[#number] then return false end
    for k = #number, 1, -1 do
      local n = byte(number, k) - 48
      if double then n = n > 4 and 2 * n - 9 or 2 * n end
      total, double = total + n, not double
    end
    return total % 10 == 0
  end

  local UUID = "^%x%x%x%x%x%x%x%x%-%x%x%x%x%-%x%x%x%x%-%x%x%x%x%-%x%x%x%x%x%x%x%x%x%x%x%x"

  -- Whether the digits from a to e are the fraction of a decimal number, or within a digest or a UUID (asked after a hit).
  local function is_part(text, a, e)
    if before(text, a) == 46 and is_digit(before(text, a - 1)) then return true end
    if e > 7 and find(text, UUID, e - 7) then return true end
    local first = a > 40 and a - 40 or 1
    local window, head = sub(text, first, e + 40), a - first
    while head > 0 and find(window, "^%x", head) do head = head - 1 end
    local _, stop = find(window, "^%x*", e - first + 2)
    return stop - head >= 32 and find(sub(window, head + 1, stop), "%a") ~= nil
  end

  -- In groups as they are printed: the first of four (or six) digits, then three to seven each (or thirteen).
  local function is_grouped_card(text, a, n)
    local window = sub(text, a, a + 39)
    local number, i = sub(window, 1, n), n + 1
    for _ = 1, 5 do
      local _, gap = find(window, "^[%s%-%._/]*", i)
      if gap < i or gap - i >= 3 then return false end
      local _, e = find(window, "^%d*", gap + 1)
      local length = e - gap
      if length < 3 or length > 7 and not (n == 6 and length == 13) then return false end
      number = number .. sub(window, gap + 1, e)
      if #number > 19 then return false end
      if #number >= 13 and is_card(number) then return true end
      i = e + 1
    end
    return false
  end

  local IBAN = {} -- country -> length
  gsub([[AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BI27 BR29 BY28 CH21 CR22 CY28 CZ24 DE22 DJ27 DK18 DO28 EE20 EG29 ES24
    FI18 FK18 FO18 FR27 GB22 GE22 GI23 GL18 GR27 GT28 HN28 HR21 HU28 IE22 IL23 IQ23 IS26 IT27 JO30 KW30 KZ20 LB28 LC32
    LI21 LT20 LU20 LV21 LY25 MC27 MD24 ME22 MK19 MN20 MR27 MT31 MU30 NI28 NL18 NO15 OM23 PK24 PL28 PS29 PT25 QA29 RO24
    RS22 RU33 SA24 SC31 SD18 SE24 SI19 SK24 SM27 SO23 ST25 SV28 TL23 TN24 TR26 UA29 VA22 VG24 XK20 YE30]],
    "(%u%u)(%d%d)", function(country, length) IBAN[country] = tonumber(length) end)

  local function is_iban(text, a)
    local length = IBAN[upper(sub(text, a - 2, a - 1))]
    if not length then return false end
    local window, number, i = sub(text, a - 2, a + 2 * length), "", 1
    while #number < length do
      local _, e = find(window, "^%w*", i)
      if e < i then return false end
      number = number .. sub(window, i, e)
      local c = byte(window, e + 1)
      if #number < length and c ~= 32 and c ~= 45 then return false end
      i = e + 2
    end
    if #number ~= length then return false end
    local rest = 0
    number = upper(sub(number, 5) .. sub(number, 1, 4))
    for k = 1, length do
      local c = byte(number, k)
      if c > 57 then rest = (rest * 100 + c - 55) % 97 else rest = (rest * 10 + c - 48) % 97 end
    end
    return rest == 1
  end

  -- wanted, found: sets of the names of built-in detectors.
  local function scan_digits(text, wanted, found)
    local a, e = find(text, "%d%d")
    while a do
      local _
      _, e = find(text, "^%d*", e + 1)
      local n = e - a + 1
      if wanted.IBAN and a > 2 and is_letter(byte(text, a - 1)) and is_letter(byte(text, a - 2)) and is_iban(text, a) then
        found.IBAN = true
      end
      if n == 3 then
        if wanted.SSN and is_ssn(text, a, e) then found.SSN = true end
        if wanted.Phone and is_nanp(text, a, e) then found.Phone = true end
      elseif n == 9 then
        if wanted.SSN and is_bare_ssn(text, a, e) then found.SSN = true end
      elseif wanted.PaymentCard and (n == 4 or n == 6) then
        if is_grouped_card(text, a, n) and not is_part(text, a, e) then found.PaymentCard = true end
      elseif wanted.PaymentCard and n >= 13 and n <= 19 then
        if is_card(sub(text, a, e)) and not is_part(text, a, e) then found.PaymentCard = true end
      end
      a, e = find(text, "%d%d", e + 1)
    end
  end

  -- Keys of vendors -----------------------------------------------------------------------------------------------------

  -- prefix, what follows it, how many of that at least (exactly: `only`); `mixed`: words joined by dashes look like it
  -- too, so there must be a digit, and a capital unless it is long.
  local SECRETS = {
    { "sk-", "^[%w_%-]*", 20, mixed = true }, -- OpenAI, Anthropic (sk-ant-), OpenRouter, DeepSeek, LiteLLM …
    { "sk_live_", "^%w*", 16 }, { "rk_live_", "^%w*", 16 }, -- Stripe
    { "ghp_", "^%w*", 36 }, { "gho_", "^%w*", 36 }, { "ghu_", "^%w*", 36 }, { "ghs_", "^%w*", 36 }, { "ghr_", "^%w*", 36 },
    { "github_pat_", "^[%w_]*", 22 },
    { "glpat-", "^[%w_%-]*", 20 },
    { "xoxa-", "^[%w%-]*", 10 }, { "xoxb-", "^[%w%-]*", 10 }, { "xoxe-", "^[%w%-]*", 10 }, { "xoxo-", "^[%w%-]*", 10 }, -- Slack
    { "xoxp-", "^[%w%-]*", 10 }, { "xoxr-", "^[%w%-]*", 10 }, { "xoxs-", "^[%w%-]*", 10 }, { "xapp-", "^[%w%-]*", 10 },
    { "AKIA", "^[%u%d]*", 16, only = true }, { "ASIA", "^[%u%d]*", 16, only = true }, -- AWS
    { "AIza", "^[%w_%-]*", 35 }, -- Google
    { "hf_", "^%w*", 30 }, -- Hugging Face
    { "nvapi-", "^[%w_%-]*", 40 }, -- NVIDIA
  }

  local function is_mixed(text, a, e)
    local key = sub(text, a, e < a + 255 and e or a + 255)
    return find(key, "%d") ~= nil and (find(key, "%u") ~= nil or #key >= 35)
  end

  local function has_key(text, spec)
    local prefix = spec[1]
    local p = find(text, prefix, 1, true)
    while p do
      local start = p + #prefix
      local stop = start - 1
      local c = before(text, p)
      if not is_letter(c) and not is_digit(c) then
        local _
        _, stop = find(text, spec[2], start)
        local n = stop - start + 1
        if spec.only then
          local after = byte(text, stop + 1)
          if n == spec[3] and not is_letter(after) and not is_digit(after) then return true end
        elseif n >= spec[3] and (not spec.mixed or is_mixed(text, p, stop)) then
          return true
        end
      end
      p = find(text, prefix, stop + 1, true)
    end
    return false
  end

  -- JSON Web Token: base64url of '{"', and two more parts.
  local function has_jwt(text)
    local p = find(text, "eyJ", 1, true)
    while p do
      local _, head = find(text, "^[%w_%-]*", p + 3)
      if head - p >= 12 and byte(text, head + 1) == 46 then
        local _, body = find(text, "^[%w_%-]*", head + 2)
        if body - head >= 11 and byte(text, body + 1) == 46 then return true end
      end
      p = find(text, "eyJ", head + 1, true)
    end
    return false
  end

  local function has_private_key(text)
    local p = find(text, "PRIVATE KEY", 1, true)
    while p do
      if find(sub(text, p > 32 and p - 32 or 1, p - 1), "BEGIN ", 1, true) then return true end
      p = find(text, "PRIVATE KEY", p + 11, true)
    end
    return find(text, "PuTTY-User-Key-File-", 1, true) ~= nil
  end

  local function has_secret(text)
    for k = 1, #SECRETS do
      if has_key(text, SECRETS[k]) then return true end
    end
    return has_jwt(text) or has_private_key(text)
  end

  -- All of them ---------------------------------------------------------------------------------------------------------

  local DIGITS = { IBAN = true, PaymentCard = true, Phone = true, SSN = true }
  local PLAIN = { Email = has_email, Secrets = has_secret, PrivateKey = has_private_key, Phone = has_international }

  function compile_detectors(list, ranks)
    local compiled, digits = {}, {}
    for k = 1, #list do
      local detector = list[k]
      local builtin, rank, keywords = detector.builtin, ranks[detector.class], {}
      if not rank or type(detector.name) ~= "string" then error("a detector without class or name") end
      if builtin and not DIGITS[builtin] and not PLAIN[builtin] then error("an unknown built-in detector") end
      for w, keyword in ipairs(detector.keywords or {}) do keywords[w] = compile_keyword(keyword) end
      if builtin and DIGITS[builtin] then digits[builtin] = true end
      compiled[k] = { name = detector.name, rank = rank, order = k, builtin = builtin, keywords = keywords }
    end
    -- The highest first: the first that finds something settles it.
    table.sort(compiled, function(a, b)
      if a.rank ~= b.rank then return a.rank > b.rank end
      return a.order < b.order
    end)
    return { list = compiled, digits = digits }
  end

  local function finds(detector, text, low, found)
    local builtin = detector.builtin
    if builtin and (found[builtin] or PLAIN[builtin] and PLAIN[builtin](text)) then return true end
    for w = 1, #detector.keywords do
      if has_keyword(text, low, detector.keywords[w]) then return true end
    end
    return false
  end

  function detect(detectors, text, floor)
    local list, low, found = detectors.list, lower(text), {}
    if next(detectors.digits) then scan_digits(text, detectors.digits, found) end
    for k = 1, #list do
      local detector = list[k]
      if detector.rank <= floor then return nil end
      if finds(detector, text, low, found) then return detector.rank, detector.name end
    end
    return nil
  end
end
