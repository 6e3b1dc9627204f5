package registrytest

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/bits"

	"github.com/cyberphone/json-canonicalization/go/src/webpki.org/jsoncanonicalizer"
	protocommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	protorekor "github.com/sigstore/protobuf-specs/gen/pb-go/rekor/v1"
	tiles "github.com/sigstore/rekor-tiles/v2/pkg/generated/protobuf"
	"github.com/sigstore/rekor-tiles/v2/pkg/note"
	"github.com/sigstore/rekor/pkg/pki"
	"github.com/sigstore/rekor/pkg/types"
	"github.com/sigstore/rekor/pkg/types/dsse"
	dssev001 "github.com/sigstore/rekor/pkg/types/dsse/v0.0.1"
	"github.com/sigstore/rekor/pkg/types/hashedrekord"
	hashedrekordv001 "github.com/sigstore/rekor/pkg/types/hashedrekord/v0.0.1"
	"github.com/sigstore/rekor/pkg/util"
	"github.com/sigstore/sigstore-go/pkg/tlog"
	"github.com/sigstore/sigstore/pkg/signature"
	"github.com/sigstore/sigstore/pkg/signature/options"
	"github.com/transparency-dev/merkle/rfc6962"
	sumdbnote "golang.org/x/mod/sumdb/note"
	"google.golang.org/protobuf/encoding/protojson"
)

// treeID stands in the origin of a checkpoint of a log of the first version, by which clients tell the versions apart.
const treeID = 1193050959916656506

// A record is what a log is told about a signature.
type record struct {
	by        *signer
	signature []byte
	signed    []byte // the bytes that the signature is over
	envelope  []byte // around it in JSON; nil when the signature stands alone
}

// log writes a record down.
func (s *Sigstore) log(ctx context.Context, r record, w Witness) (*protorekor.TransparencyLogEntry, error) {
	body, kind, err := s.body(ctx, r)
	if err != nil {
		return nil, err
	}
	id, key, err := impostor{w.UnknownLog, w.LogByUnknownKey}.as(s.rekorKey)
	if err != nil {
		return nil, err
	}
	proof := s.append(body)
	entry := &protorekor.TransparencyLogEntry{
		LogIndex: proof.LogIndex, LogId: &protocommon.LogId{KeyId: id}, KindVersion: kind,
		InclusionProof: proof, CanonicalizedBody: body,
	}
	checkpoint := s.checkpointV2
	if !s.config.RekorV2 {
		checkpoint = s.checkpointV1
		entry.IntegratedTime = w.logTime().Unix()
		if entry.InclusionPromise, err = promise(entry, key); err != nil {
			return nil, err
		}
	}
	signed, err := checkpoint(ctx, proof, key)
	if err != nil {
		return nil, fmt.Errorf("registrytest: sign a checkpoint: %w", err)
	}
	proof.Checkpoint = &protorekor.Checkpoint{Envelope: signed}
	return entry, nil
}

// body is the entry as the log keeps it.
func (s *Sigstore) body(ctx context.Context, r record) ([]byte, *protorekor.KindVersion, error) {
	if s.config.RekorV2 {
		body, err := r.bodyV2()
		return body, &protorekor.KindVersion{Kind: hashedrekord.KIND, Version: "0.0.2"}, err
	}
	kind := &protorekor.KindVersion{Kind: hashedrekord.KIND, Version: hashedrekordv001.APIVERSION}
	if r.envelope != nil {
		kind = &protorekor.KindVersion{Kind: dsse.KIND, Version: dssev001.APIVERSION}
	}
	body, err := r.bodyV1(ctx, kind)
	if err != nil {
		return nil, nil, fmt.Errorf("registrytest: make a %s entry: %w", kind.Kind, err)
	}
	return body, kind, nil
}

// bodyV1 goes the way of an entry through Rekor: proposed by a client, checked, and made canonical.
func (r record) bodyV1(ctx context.Context, kind *protorekor.KindVersion) ([]byte, error) {
	verifier, err := r.by.publicPEM()
	if err != nil {
		return nil, err
	}
	properties := types.ArtifactProperties{
		PublicKeyBytes: [][]byte{verifier}, PKIFormat: string(pki.X509), ArtifactBytes: r.envelope,
	}
	if r.envelope == nil {
		_, digest := r.by.digest(r.signed)
		properties.SignatureBytes, properties.ArtifactHash = r.signature, hex.EncodeToString(digest)
	}
	proposed, err := types.NewProposedEntry(ctx, kind.Kind, kind.Version, properties)
	if err != nil {
		return nil, err
	}
	versioned, err := types.CreateVersionedEntry(proposed)
	if err != nil {
		return nil, err
	}
	return types.CanonicalizeEntry(ctx, versioned)
}

// bodyV2 is a hashedrekord whatever was signed, since the second version keeps nothing else of an envelope.
func (r record) bodyV2() ([]byte, error) {
	details, err := signature.GetDefaultAlgorithmDetails(r.by.key.Public(), options.WithED25519ph())
	if err != nil {
		return nil, fmt.Errorf("registrytest: name the key's algorithm: %w", err)
	}
	_, digest := r.by.digest(r.signed)
	verifier := &tiles.Verifier{KeyDetails: details.GetSignatureAlgorithm()}
	if r.by.chain != nil {
		verifier.Verifier = &tiles.Verifier_X509Certificate{
			X509Certificate: &protocommon.X509Certificate{RawBytes: r.by.chain.leaf.Raw},
		}
	} else {
		der, err := x509.MarshalPKIXPublicKey(r.by.key.Public())
		if err != nil {
			return nil, fmt.Errorf("registrytest: encode a public key: %w", err)
		}
		verifier.Verifier = &tiles.Verifier_PublicKey{PublicKey: &tiles.PublicKey{RawBytes: der}}
	}
	encoded, err := protojson.Marshal(&tiles.Entry{
		Kind: hashedrekord.KIND, ApiVersion: "0.0.2",
		Spec: &tiles.Spec{Spec: &tiles.Spec_HashedRekordV002{HashedRekordV002: &tiles.HashedRekordLogEntryV002{
			Data:      &protocommon.HashOutput{Algorithm: details.GetProtoHashType(), Digest: digest},
			Signature: &tiles.Signature{Content: r.signature, Verifier: verifier},
		}}},
	})
	if err != nil {
		return nil, fmt.Errorf("registrytest: encode an entry: %w", err)
	}
	return jsoncanonicalizer.Transform(encoded)
}

// promise is the signed entry timestamp.
func promise(entry *protorekor.TransparencyLogEntry, key *ecdsa.PrivateKey) (*protorekor.InclusionPromise, error) {
	encoded, err := json.Marshal(rekorPayload(entry))
	if err != nil {
		return nil, fmt.Errorf("registrytest: encode an entry: %w", err)
	}
	canonical, err := jsoncanonicalizer.Transform(encoded)
	if err != nil {
		return nil, fmt.Errorf("registrytest: make an entry canonical: %w", err)
	}
	signer, err := signature.LoadECDSASigner(key, crypto.SHA256)
	if err != nil {
		return nil, fmt.Errorf("registrytest: load a log's key: %w", err)
	}
	signed, err := signer.SignMessage(bytes.NewReader(canonical))
	if err != nil {
		return nil, fmt.Errorf("registrytest: promise an entry: %w", err)
	}
	return &protorekor.InclusionPromise{SignedEntryTimestamp: signed}, nil
}

func rekorPayload(entry *protorekor.TransparencyLogEntry) tlog.RekorPayload {
	return tlog.RekorPayload{
		Body:           base64.StdEncoding.EncodeToString(entry.CanonicalizedBody),
		IntegratedTime: entry.IntegratedTime, LogIndex: entry.LogIndex, LogID: hex.EncodeToString(entry.LogId.KeyId),
	}
}

func (s *Sigstore) checkpointV1(
	ctx context.Context, proof *protorekor.InclusionProof, key *ecdsa.PrivateKey,
) (string, error) {
	signer, err := signature.LoadECDSASigner(key, crypto.SHA256)
	if err != nil {
		return "", err
	}
	size := uint64(proof.TreeSize)
	signed, err := util.CreateAndSignCheckpoint(ctx, s.host("rekor"), treeID, size, proof.RootHash, signer)
	return string(signed), err
}

func (s *Sigstore) checkpointV2(
	ctx context.Context, proof *protorekor.InclusionProof, key *ecdsa.PrivateKey,
) (string, error) {
	signer, err := signature.LoadECDSASigner(key, crypto.SHA256)
	if err != nil {
		return "", err
	}
	noteSigner, err := note.NewNoteSigner(ctx, s.host("rekor"), signer)
	if err != nil {
		return "", err
	}
	text := util.Checkpoint{Origin: s.host("rekor"), Size: uint64(proof.TreeSize), Hash: proof.RootHash}.String()
	signed, err := sumdbnote.Sign(&sumdbnote.Note{Text: text}, noteSigner)
	return string(signed), err
}

// append adds an entry to the tree and proves that it is there; the proof lacks its checkpoint.
func (s *Sigstore) append(body []byte) *protorekor.InclusionProof {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.leaves = append(s.leaves, rfc6962.DefaultHasher.HashLeaf(body))
	index := len(s.leaves) - 1
	return &protorekor.InclusionProof{
		LogIndex: int64(index), TreeSize: int64(len(s.leaves)),
		RootHash: treeHash(s.leaves), Hashes: treePath(index, s.leaves),
	}
}

// treeHash is the hash of a tree that is not empty (RFC 6962, 2.1).
func treeHash(leaves [][]byte) []byte {
	if len(leaves) == 1 {
		return leaves[0]
	}
	k := split(len(leaves))
	return rfc6962.DefaultHasher.HashChildren(treeHash(leaves[:k]), treeHash(leaves[k:]))
}

// treePath is what one leaf lacks to make the hash of the tree (RFC 6962, 2.1.1).
func treePath(index int, leaves [][]byte) [][]byte {
	if len(leaves) == 1 {
		return nil
	}
	k := split(len(leaves))
	if index < k {
		return append(treePath(index, leaves[:k]), treeHash(leaves[k:]))
	}
	return append(treePath(index-k, leaves[k:]), treeHash(leaves[:k]))
}

// split is the largest power of two below n, which is at least two.
func split(n int) int { return 1 << (bits.Len(uint(n-1)) - 1) }

// An impostor signs for a log that it is not.
type impostor struct {
	unknown bool // under a name of its own
	forged  bool // under the name of the log
}

// as gives the name that is signed under and the key; those of the log itself when there is nothing false.
func (i impostor) as(own *ecdsa.PrivateKey) (name []byte, key *ecdsa.PrivateKey, err error) {
	named := own
	key = own
	if i.unknown || i.forged {
		if key, err = newP256(); err != nil {
			return nil, nil, err
		}
	}
	if i.unknown {
		named = key
	}
	name, err = logID(named.Public())
	return name, key, err
}
