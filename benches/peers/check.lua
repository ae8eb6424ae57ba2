-- The token and the signature, with OpenSSL's own functions, as nginx is linked with it. Names in capitals are filled in.
local ffi = require "ffi"
local cjson = require "cjson"
ffi.cdef [[
typedef struct evp_md_st EVP_MD;
const EVP_MD *EVP_sha256(void);
unsigned char *HMAC(const EVP_MD *md, const void *key, int key_len, const char *d, size_t n, unsigned char *out, unsigned int *len);
int CRYPTO_memcmp(const void *a, const void *b, size_t len);
]]
local C = ffi.C
local sha256, out, length = C.EVP_sha256(), ffi.new("unsigned char[32]"), ffi.new("unsigned int[1]")
local key, secret = "$KEY", "$SECRET"

local function mac(with, text)
    C.HMAC(sha256, with, #with, text, #text, out, length)
    return ffi.string(out, 32)
end

local function same(a, b)
    return #a == #b and C.CRYPTO_memcmp(a, b, #a) == 0
end

local function base64url(text)
    return ngx.decode_base64((text:gsub("-", "+"):gsub("_", "/") .. ("="):rep(-#text % 4)))
end

local hex = {}
for i = 0, 255 do hex[string.char(i)] = ("%02x"):format(i) end

return function(id)
    local header, claims, signature = (ngx.var.http_authorization or ""):match("^Bearer ([%w_-]+)%.([%w_-]+)%.([%w_-]+)$$")
    if not header then return ngx.exit(401) end
    local read, told = pcall(cjson.decode, base64url(header) or "")
    if not read or told.alg ~= "HS256" then return ngx.exit(401) end
    if not same(base64url(signature) or "", mac(key, header .. "." .. claims)) then return ngx.exit(401) end
    local read, claimed = pcall(cjson.decode, base64url(claims) or "")
    if not read or claimed.aud ~= "https://agent.example.com" or type(claimed.exp) ~= "number" or claimed.exp <= ngx.time()
        or type(claimed.cap) ~= "table" or claimed.cap.id ~= id then
        return ngx.exit(401)
    end
    ngx.req.read_body()
    local made = mac(secret, ngx.req.get_body_data() or ""):gsub(".", hex)
    if not same(ngx.var.http_x_hub_signature_256 or "", "sha256=" .. made) then return ngx.exit(401) end
end
