-- What a person or a model reads as the same character becomes the same byte before anything is matched: digits of every
-- script, full-width and mathematical letters, accents, dashes, spaces. What nobody sees (zero-width characters, soft
-- hyphens, direction marks, variation selectors, combining marks) goes. Keywords pass through the same fold.
--
-- fold(text)    UTF-8 -> UTF-8, shorter or equal
-- loosen(text)  one layer of JSON escapes taken off, wherever they stand: JSON inside a string, whole or in part
local fold, loosen
do
  local FOLD = {} -- UTF-8 of one character -> what stands for it

  local function put(first, last, to)
    for n = first, last do FOLD[utf8_char(n)] = to end
  end
  -- From `first` on, one character of `to` after the other; "_" leaves a character as it is.
  local function put_run(first, to)
    for k = 1, #to do
      local c = sub(to, k, k)
      if c ~= "_" then FOLD[utf8_char(first + k - 1)] = c end
    end
  end
  local function each(list, f)
    gsub(list, "(%x+)%-?(%x*)", function(a, b)
      a = tonumber(a, 16)
      f(a, tonumber(b, 16) or a)
    end)
  end

  each("80-9F AD 300-36F 483-489 61C 180B-180F 115F 1160 17B4 17B5 1AB0-1ACE 1DC0-1DFF 200B-200F 202A-202E 2060-206F "
    .. "20D0-20FF 3164 FE00-FE0F FE20-FE2F FEFF FFA0 FFF9-FFFB 1D173-1D17A E0000-E007F E0100-E01EF",
    function(a, b) put(a, b, "") end)
  each("A0 1680 2000-200A 202F 205F 2800 3000", function(a, b) put(a, b, " ") end)
  each("85 2028 2029", function(a, b) put(a, b, "\n") end)
  each("2D7 58A 5BE 1400 1806 2010-2015 2043 2212 2796 2E17 2E1A 2E3A 2E3B 2E40 2E5D 301C 3030 30A0 FE31 FE32 FE58 FE63 "
    .. "10EAD", function(a, b) put(a, b, "-") end)
  put(0x2024, 0x2024, ".")
  put(0x2044, 0x2044, "/")
  put(0xFE6B, 0xFE6B, "@")

  -- Decimal digits (Unicode's Nd): where each row of ten begins. Then rows that only look like digits.
  each("660 6F0 7C0 966 9E6 A66 AE6 B66 BE6 C66 CE6 D66 DE6 E50 ED0 F20 1040 1090 17E0 1810 1946 19D0 1A80 1A90 1B50 1BB0 "
    .. "1C40 1C50 A620 A8D0 A900 A9D0 A9F0 AA50 ABF0 104A0 10D30 10D40 11066 110F0 11136 111D0 112F0 11450 114D0 11650 "
    .. "116C0 116D0 116DA 11730 118E0 11950 11BF0 11C50 11D50 11DA0 11DE0 11F50 16130 16A60 16AC0 16B50 16D70 1CCF0 1D7CE "
    .. "1D7D8 1D7E2 1D7EC 1D7F6 1E140 1E2F0 1E4F0 1E5F1 1E950 1FBF0 2080",
    function(a) put_run(a, "0123456789") end)
  put_run(0x2070, "0___456789")
  put_run(0xB2, "23_____1")
  each("2460 2474 2488 24F5 2776 2780 278A", function(a) put_run(a, "123456789") end)
  each("24EA 24FF 1F100", function(a) put(a, a, "0") end)

  -- Letters: full width (with the rest of ASCII), mathematical, circled, accented; capitals of Greek and Cyrillic.
  for n = 0x21, 0x7E do put(0xFEE0 + n, 0xFEE0 + n, char(n)) end
  for n = 0x1D400, 0x1D6A3 do
    local letter = (n - 0x1D400) % 52
    put(n, n, char(letter < 26 and 65 + letter or 71 + letter))
  end
  put_run(0x24B6, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")
  put_run(0xC0, "AAAAAA_CEEEEIIII_NOOOOO__UUUUY__aaaaaa_ceeeeiiii_nooooo__uuuuy_y"
    .. "AaAaAaCcCcCcCcDd__EeEeEeEeEeGgGgGgGgHh__IiIiIiIiI___JjKk_LlLlLl____NnNnNn___OoOoOo__RrRrRrSsSsSsSsTtTt__"
    .. "UuUuUuUuUuUuWwYyYZzZzZz_")
  for n = 0x391, 0x3A9 do put(n, n, utf8_char(n + 0x20)) end
  for n = 0x410, 0x42F do put(n, n, utf8_char(n + 0x20)) end
  for n = 0x400, 0x40F do put(n, n, utf8_char(n + 0x50)) end

  -- A lead byte takes all that continue it, so a match is one character. Those of Han and Hangul fold to nothing else.
  function fold(text)
    text = gsub(text, "[\194-\227\234\239-\243][\128-\191]+", FOLD)
    return (gsub(text, "\127", ""))
  end

  local LOOSE = { ['"'] = '"', ["\\"] = "\\", ["/"] = "/", b = "", f = " ", n = "\n", r = "\r", t = "\t" }

  local function loose_escape(c, hex)
    if c ~= "u" or #hex < 4 then return (LOOSE[c] or "\\" .. c) .. hex end
    local n = tonumber(hex, 16)
    if n < 32 or n == 127 then return (n == 9 or n == 10 or n == 13) and char(n) or (n == 11 or n == 12) and " " or "" end
    return utf8_char(n)
  end

  function loosen(text)
    if not find(text, "\\u", 1, true) then return (gsub(text, "\\(.)", LOOSE)) end
    text = gsub(text, "\\(.)(%x?%x?%x?%x?)", loose_escape)
    if find(text, "\237", 1, true) then text = join_surrogates(text) end
    return text
  end
end
