package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/digitorus/timestamp"
	"github.com/go-openapi/runtime"
	"github.com/sigstore/rekor/pkg/generated/models"
	"github.com/sigstore/rekor/pkg/types"
	_ "github.com/sigstore/rekor/pkg/types/dsse/v0.0.1"         // the kinds of entries that the programs send
	_ "github.com/sigstore/rekor/pkg/types/hashedrekord/v0.0.1" // likewise
	_ "github.com/sigstore/rekor/pkg/types/intoto/v0.0.2"       // likewise
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/testing/ca"
	"github.com/sigstore/sigstore-go/pkg/tlog"
)

// A sigstore answers over HTTP as Fulcio (/api/v1 and /api/v2/signingCert), Rekor (/api/v1/log/entries) and a timestamp
// authority (/stamp) do. It certifies whatever a token says, and its certificates are in no log.
type sigstore struct {
	log           *ca.VirtualSigstore
	root, issuer  *x509.Certificate
	issuerKey     *ecdsa.PrivateKey
	stampIssuer   *x509.Certificate
	stampLeaf     *x509.Certificate
	stampKey      *ecdsa.PrivateKey
	begin, expire time.Time
}

func newSigstore() (*sigstore, error) {
	s := &sigstore{begin: time.Now().Add(-time.Hour), expire: time.Now().Add(time.Hour)}
	var err error
	if s.log, err = ca.NewVirtualSigstore(); err != nil {
		return nil, err
	}
	var rootKey, stampIssuerKey *ecdsa.PrivateKey
	if s.root, rootKey, err = ca.GenerateRootCa(); err != nil {
		return nil, err
	}
	if s.issuer, s.issuerKey, err = ca.GenerateFulcioIntermediate(s.root, rootKey); err != nil {
		return nil, err
	}
	if s.stampIssuer, stampIssuerKey, err = ca.GenerateTSAIntermediate(s.root, rootKey); err != nil {
		return nil, err
	}
	if s.stampKey, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return nil, err
	}
	s.stampLeaf, err = ca.GenerateTSALeafCert(time.Now().Add(-time.Minute), s.stampKey, s.stampIssuer, stampIssuerKey)
	return s, err
}

// trustedRoot is the trusted_root.json for it.
func (s *sigstore) trustedRoot() ([]byte, error) {
	logs := s.log.RekorLogs()
	for name, log := range logs {
		id, err := hex.DecodeString(name)
		if err != nil {
			return nil, err
		}
		log.ID = id
	}
	trusted, err := root.NewTrustedRoot(root.TrustedRootMediaType01,
		[]root.CertificateAuthority{&root.FulcioCertificateAuthority{
			Root: s.root, Intermediates: []*x509.Certificate{s.issuer}, URI: "https://fulcio.localhost",
			ValidityPeriodStart: s.begin, ValidityPeriodEnd: s.expire,
		}}, nil,
		[]root.TimestampingAuthority{&root.SigstoreTimestampingAuthority{
			Root: s.root, Intermediates: []*x509.Certificate{s.stampIssuer}, Leaf: s.stampLeaf,
			URI: "https://timestamp.localhost", ValidityPeriodStart: s.begin, ValidityPeriodEnd: s.expire,
		}}, logs)
	if err != nil {
		return nil, err
	}
	return trusted.MarshalJSON()
}

func (s *sigstore) handler() http.Handler {
	mux := http.NewServeMux()
	type maker func(header http.Header, r *http.Request, body []byte) ([]byte, error)
	answer := func(pattern, contentType string, status int, make maker) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			body, err := io.ReadAll(r.Body)
			if err == nil {
				body, err = make(w.Header(), r, body)
			}
			if err != nil {
				http.Error(w, err.Error(), http.StatusBadRequest)
				return
			}
			w.Header().Set("Content-Type", contentType)
			w.WriteHeader(status)
			_, _ = w.Write(body)
		})
	}
	answer("POST /api/v1/signingCert", "application/pem-certificate-chain", http.StatusCreated, s.certifyV1)
	answer("POST /api/v2/signingCert", "application/json", http.StatusOK, s.certifyV2)
	answer("POST /api/v1/log/entries", "application/json", http.StatusCreated, s.enter)
	answer("POST /stamp", "application/timestamp-reply", http.StatusCreated, s.stamp)
	return mux
}

func (s *sigstore) certifyV1(_ http.Header, r *http.Request, body []byte) ([]byte, error) {
	var request struct{ PublicKey struct{ Content []byte } }
	if err := json.Unmarshal(body, &request); err != nil {
		return nil, err
	}
	chain, err := s.certify(r, request.PublicKey.Content)
	return []byte(strings.Join(chain, "")), err
}

func (s *sigstore) certifyV2(_ http.Header, r *http.Request, body []byte) ([]byte, error) {
	var request struct {
		PublicKeyRequest struct{ PublicKey struct{ Content string } }
	}
	if err := json.Unmarshal(body, &request); err != nil {
		return nil, err
	}
	chain, err := s.certify(r, []byte(request.PublicKeyRequest.PublicKey.Content))
	if err != nil {
		return nil, err
	}
	return json.Marshal(map[string]any{"signedCertificateEmbeddedSct": map[string]any{
		"chain": map[string]any{"certificates": chain},
	}})
}

// certify believes the token of a request, and gives the chain in PEM, the leaf first.
func (s *sigstore) certify(r *http.Request, publicPEM []byte) ([]string, error) {
	parts := strings.Split(strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "), ".")
	block, _ := pem.Decode(publicPEM)
	if len(parts) != 3 || block == nil {
		return nil, errors.New("want a token and a public key in PEM")
	}
	text, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return nil, err
	}
	var claims struct{ Email, Iss string }
	if err := json.Unmarshal(text, &claims); err != nil {
		return nil, err
	}
	public, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, err
	}
	leaf, err := ca.GenerateLeafCert(claims.Email, claims.Iss, time.Now(), publicOnly{public}, s.issuer, s.issuerKey)
	if err != nil {
		return nil, err
	}
	var chain []string
	for _, certificate := range []*x509.Certificate{leaf, s.issuer, s.root} {
		chain = append(chain, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate.Raw})))
	}
	return chain, nil
}

// A publicOnly is a key of somebody else, of which ca wants no more than the public half.
type publicOnly struct{ public crypto.PublicKey }

func (p publicOnly) Public() crypto.PublicKey { return p.public }

func (p publicOnly) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) {
	return nil, errors.New("the private key is somebody else's")
}

// enter has every entry be the only one of a log.
func (s *sigstore) enter(header http.Header, r *http.Request, body []byte) ([]byte, error) {
	proposed, err := models.UnmarshalProposedEntry(strings.NewReader(string(body)), runtime.JSONConsumer())
	if err != nil {
		return nil, err
	}
	entry, err := types.CreateVersionedEntry(proposed)
	if err != nil {
		return nil, err
	}
	canonical, err := types.CanonicalizeEntry(r.Context(), entry)
	if err != nil {
		return nil, err
	}
	id, err := s.log.RekorLogID()
	if err != nil {
		return nil, err
	}
	logged := tlog.RekorPayload{
		Body: base64.StdEncoding.EncodeToString(canonical), IntegratedTime: time.Now().Unix(), LogID: id,
	}
	promise, err := s.log.RekorSignPayload(logged)
	if err != nil {
		return nil, err
	}
	proof, err := s.log.GetInclusionProof(canonical)
	if err != nil {
		return nil, err
	}
	name := fmt.Sprintf("%x", sha256.Sum256(append([]byte{0}, canonical...)))
	header.Set("ETag", name)
	header.Set("Location", r.URL.Path+"/"+name)
	return json.Marshal(map[string]any{name: map[string]any{
		"body": logged.Body, "integratedTime": logged.IntegratedTime, "logIndex": logged.LogIndex, "logID": logged.LogID,
		"verification": map[string]any{"signedEntryTimestamp": promise, "inclusionProof": proof},
	}})
}

func (s *sigstore) stamp(_ http.Header, _ *http.Request, body []byte) ([]byte, error) {
	request, err := timestamp.ParseRequest(body)
	if err != nil {
		return nil, err
	}
	stamp := timestamp.Timestamp{
		HashAlgorithm: request.HashAlgorithm, HashedMessage: request.HashedMessage, Time: time.Now(), Nonce: request.Nonce,
		Policy: []int{1, 3, 6, 1, 4, 1, 57264, 2}, AddTSACertificate: request.Certificates, ExtraExtensions: request.Extensions,
	}
	return stamp.CreateResponseWithOpts(s.stampLeaf, s.stampKey, crypto.SHA256)
}
