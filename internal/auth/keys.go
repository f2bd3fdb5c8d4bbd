package auth

import (
	"bytes"
	"crypto/sha256"
	_ "crypto/sha512" // for the algorithms of 384 and 512 bits
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync/atomic"
)

const (
	maxKeysBytes = 1 << 20 // of a file or an answer with keys
	maxKeys      = 100     // of an issuer
	maxUnnamed   = 8       // keys without an id: a token that names none is tried with each
)

// key verifies the signatures of one issuer.
type key struct {
	id       string   // its kid; "" where the source gives none
	verifies []string // the names of the algorithms that it may verify; never empty
	material any      // *rsa.PublicKey, *ecdsa.PublicKey, ed25519.PublicKey or, for HS*, []byte
	print    fingerprint
}

// fingerprint tells keys apart.
type fingerprint [16]byte

func fingerprintOf(material any) (print fingerprint, err error) {
	raw, secret := material.([]byte)
	if !secret {
		if raw, err = x509.MarshalPKIXPublicKey(material); err != nil {
			return print, err
		}
	}
	sum := sha256.Sum256(raw)
	copy(print[:], sum[:])
	return print, nil
}

// newKey returns a key for those of an issuer's algorithms that it fits. only, unless empty, is the one that the key itself
// says it is for.
func newKey(id string, material any, only string, algs []algorithm) (key, error) {
	k := key{id: id, material: material}
	var why error
	for _, a := range algs {
		if only != "" && !a.named(only) {
			why = errors.Join(why, fmt.Errorf("is for %q alone, not for %s", only, a.name))
		} else if err := a.takes(material); err != nil {
			why = errors.Join(why, fmt.Errorf("%s %w", a.name, err))
		} else {
			k.verifies = append(k.verifies, a.name)
		}
	}
	if len(k.verifies) == 0 {
		return key{}, errors.New(strings.ReplaceAll(why.Error(), "\n", "; "))
	}
	var err error
	if k.print, err = fingerprintOf(material); err != nil {
		return key{}, err
	}
	return k, nil
}

// keySet is what an issuer signs with, at one time. It doesn't change.
type keySet struct {
	keys []key
}

func newKeySet(keys []key) (*keySet, error) {
	unnamed := 0
	for _, k := range keys {
		if k.id == "" {
			unnamed++
		}
	}
	switch {
	case len(keys) == 0:
		return nil, errors.New("holds no key")
	case len(keys) > maxKeys:
		return nil, fmt.Errorf("holds %d keys; at most %d", len(keys), maxKeys)
	case unnamed > maxUnnamed:
		return nil, fmt.Errorf("holds %d keys without an id; at most %d", unnamed, maxUnnamed)
	}
	return &keySet{keys: keys}, nil
}

// verdict is what the keys of an issuer say of a signature.
type verdict int

const (
	unknownKey verdict = iota // there is no key that it could be made with
	forged                    // there are such keys, and none of them made it
	ambiguous                 // the token names no key, and too many could be meant
	verified
)

// verify holds a token's signature against the keys that its kid may mean. A key without an id may always be meant, and
// every key by a token without kid.
func (s *keySet) verify(t *unverified, a algorithm) (verdict, *key) {
	if s == nil {
		return unknownKey, nil
	}
	tried := 0
	for i := range s.keys {
		k := &s.keys[i]
		if t.hasKid && k.id != "" && k.id != t.kid || !slices.Contains(k.verifies, a.name) {
			continue
		}
		if tried++; tried > 2*maxUnnamed {
			return ambiguous, nil
		}
		if a.method.Verify(t.signed, t.signature, k.material) == nil {
			return verified, k
		}
	}
	if tried == 0 {
		return unknownKey, nil
	}
	return forged, nil
}

// has reports whether there is a key of some fingerprint.
func (s *keySet) has(print fingerprint) bool {
	return s != nil && slices.ContainsFunc(s.keys, func(k key) bool { return k.print == print })
}

// ring holds an issuer's keys while they change. Its zero value holds none.
type ring struct {
	set atomic.Pointer[keySet]
}

// keyFile is a file with an issuer's keys, which may change while the gateway runs. It is used by one goroutine at a time.
//
// It is read again every few seconds and its contents compared, since that sees every way to change a file: in place, by
// rename, by the symbolic link that Kubernetes moves for a secret, on any file system. It costs a read of a few KiB.
type keyFile struct {
	issuer string
	path   string
	parse  func(raw []byte) (*keySet, error)
	ring   *ring

	good  [sha256.Size]byte // of the contents whose keys the ring holds
	fault string            // what was wrong with it when it was read last; "" if nothing
}

// load reads the file for the first time.
func (f *keyFile) load() error {
	raw, err := readKeyFile(f.path)
	if err != nil {
		return err
	}
	return f.take(raw)
}

// reload takes over what has changed. A file that can't be read or understood leaves the keys as they were, and is told
// once.
func (f *keyFile) reload(log *slog.Logger) {
	raw, err := readKeyFile(f.path)
	if err == nil {
		same := sha256.Sum256(raw) == f.good
		if same && f.fault == "" {
			return
		}
		if !same {
			err = f.take(raw)
		}
	}
	switch {
	case err == nil:
		f.fault = ""
		log.Info("keys were read again", "issuer", f.issuer, "file", f.path, "keys", len(f.ring.set.Load().keys))
	case f.fault != err.Error():
		f.fault = err.Error()
		log.Error("a file of keys can't be used; the keys before it stay", "issuer", f.issuer, "err", err)
	}
}

func (f *keyFile) take(raw []byte) error {
	set, err := f.parse(raw)
	if err != nil {
		return fmt.Errorf("%s: %w", f.path, err)
	}
	f.good = sha256.Sum256(raw)
	f.ring.set.Store(set)
	return nil
}

func readKeyFile(path string) ([]byte, error) {
	if info, err := os.Stat(path); err != nil { // before it is opened: that waits for whoever writes into a pipe
		return nil, err
	} else if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s: isn't a file that can be read again", path)
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	raw, err := io.ReadAll(io.LimitReader(file, maxKeysBytes+1))
	if err == nil && len(raw) > maxKeysBytes {
		err = fmt.Errorf("%s: is larger than %d bytes", path, maxKeysBytes)
	}
	return raw, err
}

func parseSecret(raw []byte, algs []algorithm) (*keySet, error) {
	secret := secretOfFile(raw)
	for _, a := range algs { // all of them, or some of what is configured could never be
		if err := a.takes(secret); err != nil {
			return nil, fmt.Errorf("%s %w", a.name, err)
		}
	}
	k, err := newKey("", secret, "", algs)
	if err != nil {
		return nil, err
	}
	return newKeySet([]key{k})
}

// parsePEM reads public keys and certificates. Whatever else a file holds makes it one that was meant for another use.
func parsePEM(raw []byte, algs []algorithm) (*keySet, error) {
	var keys []key
	begun := bytes.Count(raw, []byte("-----BEGIN")) // the decoder passes over what is malformed
	for n := 1; ; n++ {
		var block *pem.Block
		if block, raw = pem.Decode(raw); block == nil {
			break
		}
		material, err := publicKey(block)
		if err != nil {
			return nil, fmt.Errorf("key %d: %w", n, err)
		}
		k, err := newKey("", material, "", algs)
		if err != nil {
			return nil, fmt.Errorf("key %d: %w", n, err)
		}
		keys = append(keys, k)
	}
	if len(keys) == 0 || len(keys) != begun {
		return nil, errors.New("isn't PEM with public keys or certificates")
	}
	return newKeySet(keys)
}

func publicKey(block *pem.Block) (any, error) {
	switch {
	case block.Type == "PUBLIC KEY":
		return x509.ParsePKIXPublicKey(block.Bytes)
	case block.Type == "RSA PUBLIC KEY":
		return x509.ParsePKCS1PublicKey(block.Bytes)
	case block.Type == "CERTIFICATE":
		certificate, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		return certificate.PublicKey, nil
	case strings.HasSuffix(block.Type, "PRIVATE KEY"):
		return nil, errors.New("is a private key; only the public one belongs here")
	default:
		return nil, errors.New("is neither a public key nor a certificate")
	}
}
