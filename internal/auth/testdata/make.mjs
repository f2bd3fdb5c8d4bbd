// Makes jose.json: tokens by jose, for foreign_test.go.
//
//     npm install jose   # 6.2 made what is here
//     node make.mjs > jose.json
//
// Keys are made anew by each run; only public ones are written. Times are fixed: the test's clock stands at noon of 2026-03-01.
import * as jose from 'jose'
import {randomBytes} from 'node:crypto'

const noon = 1772366400
const claims = {iss: 'https://id.example', aud: ['other', 'streamgw'], sub: 'ann', jti: '1', iat: noon - 60, nbf: noon - 60, exp: noon + 3600, n: 7,
  streamgw: {subscribe: [{topic: 'a', keys: ['{sub}']}]}}

async function pair(alg) {
  if (alg.startsWith('HS')) {
    const secret = randomBytes(40).toString('hex')
    return {privateKey: new TextEncoder().encode(secret), shown: secret}
  }
  const {publicKey, privateKey} = await jose.generateKeyPair(alg, {extractable: true})
  return {privateKey, publicKey, shown: await jose.exportSPKI(publicKey)}
}
const sign = (c, alg, key, header = {}) => new jose.SignJWT(c).setProtectedHeader({alg, ...header}).sign(key)
const without = name => Object.fromEntries(Object.entries(claims).filter(([n]) => n !== name))

const out = []
for (const alg of ['HS256', 'HS384', 'HS512', 'RS256', 'RS384', 'RS512', 'PS256', 'PS384', 'PS512', 'ES256', 'ES384', 'ES512', 'EdDSA', 'Ed25519']) {
  const {privateKey, publicKey, shown} = await pair(alg), other = await pair(alg)
  const good = await sign(claims, alg, privateKey, {kid: 'k', typ: 'JWT'})
  const [head, payload, signature] = good.split('.')
  const entry = {alg, key: shown, good: [good, await sign(claims, alg, privateKey, {typ: 'at+jwt'})], bad: {
    'expired': await sign({...claims, exp: noon - 31}, alg, privateKey),
    'not yet': await sign({...claims, nbf: noon + 31}, alg, privateKey),
    'issued in the future': await sign({...claims, iat: noon + 60}, alg, privateKey),
    'another audience': await sign({...claims, aud: ['other', 'streamgw2']}, alg, privateKey),
    'another issuer': await sign({...claims, iss: 'https://id.example/'}, alg, privateKey),
    'no issuer': await sign(without('iss'), alg, privateKey),
    'no exp': await sign(without('exp'), alg, privateKey),
    'another key': await sign(claims, alg, other.privateKey, {kid: 'k'}),
    'another kind': await sign(claims, alg, privateKey, {typ: 'secevent+jwt'}),
    'other claims': head + '.' + jose.base64url.encode(JSON.stringify({...claims, sub: 'bob'})) + '.' + signature,
    'unsecured': new jose.UnsecuredJWT(claims).encode(),
    'its last letter gone': good.slice(0, -1),
    'a line end': good + '\n',
  }}
  if (publicKey) {
    entry.jwks = {keys: [{...await jose.exportJWK(publicKey), kid: 'k', alg, use: 'sig'}]}
    entry.bad['a key that it brings'] = await sign(claims, alg, other.privateKey, {jwk: await jose.exportJWK(other.publicKey)})
    entry.bad['encrypted'] = await new jose.EncryptJWT(claims).setProtectedHeader({alg: 'dir', enc: 'A256GCM'}).encrypt(randomBytes(32))
  }
  out.push(entry)
}
console.log(JSON.stringify(out, null, 1))
