package signature_test

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"

	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	protocommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	protodsse "github.com/sigstore/protobuf-specs/gen/pb-go/dsse"
	protorekor "github.com/sigstore/protobuf-specs/gen/pb-go/rekor/v1"
	"github.com/sigstore/sigstore-go/pkg/tlog"
	"github.com/sigstore/sigstore-go/pkg/verify"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/hallmark-admission/hallmark/webhook/registrytest"
)

// bundle makes of the parts of an entity the JSON that a client would store. An entry without proof of inclusion is of the
// format's first version only, with the promise.
func (w *virtualWorld) bundle(e verify.SignedEntity) []byte {
	w.t.Helper()
	verification, err := e.VerificationContent()
	w.must(err)
	certificate := &protocommon.X509Certificate{RawBytes: verification.Certificate().Raw}
	made := &protobundle.Bundle{
		MediaType: registrytest.BundleMediaType,
		VerificationMaterial: &protobundle.VerificationMaterial{
			Content:                   &protobundle.VerificationMaterial_Certificate{Certificate: certificate},
			TimestampVerificationData: &protobundle.TimestampVerificationData{},
		},
	}
	entries, err := e.TlogEntries()
	w.must(err)
	for _, entry := range entries {
		made.VerificationMaterial.TlogEntries = append(made.VerificationMaterial.TlogEntries, w.logged(entry))
	}
	if !e.HasInclusionProof() {
		made.MediaType = "application/vnd.dev.sigstore.bundle+json;version=0.1"
		chain := &protocommon.X509CertificateChain{Certificates: []*protocommon.X509Certificate{certificate}}
		made.VerificationMaterial.Content = &protobundle.VerificationMaterial_X509CertificateChain{X509CertificateChain: chain}
	}
	stamps, err := e.Timestamps()
	w.must(err)
	for _, stamp := range stamps {
		made.VerificationMaterial.TimestampVerificationData.Rfc3161Timestamps = append(
			made.VerificationMaterial.TimestampVerificationData.Rfc3161Timestamps,
			&protocommon.RFC3161SignedTimestamp{SignedTimestamp: stamp})
	}
	w.content(made, e)
	text, err := protojson.Marshal(made)
	w.must(err)
	return text
}

// logged gives an entry as the log answers with it. Those of the first version have been taken apart: their kind stands in
// their body, and the promise is made again.
func (w *virtualWorld) logged(entry *tlog.Entry) *protorekor.TransparencyLogEntry {
	w.t.Helper()
	answer := entry.TransparencyLogEntry()
	if answer.KindVersion != nil {
		return answer
	}
	var body struct{ Kind, APIVersion string }
	w.must(json.Unmarshal(answer.CanonicalizedBody, &body))
	answer.KindVersion = &protorekor.KindVersion{Kind: body.Kind, Version: body.APIVersion}
	promise, err := w.sigstore.RekorSignPayload(tlog.RekorPayload{
		Body:           base64.StdEncoding.EncodeToString(answer.CanonicalizedBody),
		IntegratedTime: answer.IntegratedTime, LogIndex: answer.LogIndex, LogID: hex.EncodeToString(answer.LogId.KeyId),
	})
	w.must(err)
	answer.InclusionPromise = &protorekor.InclusionPromise{SignedEntryTimestamp: promise}
	return answer
}

// content gives a bundle what was signed.
func (w *virtualWorld) content(to *protobundle.Bundle, e verify.SignedEntity) {
	w.t.Helper()
	content, err := e.SignatureContent()
	w.must(err)
	if message := content.MessageSignatureContent(); message != nil {
		algorithm := protocommon.HashAlgorithm(protocommon.HashAlgorithm_value[message.DigestAlgorithm()])
		to.Content = &protobundle.Bundle_MessageSignature{MessageSignature: &protocommon.MessageSignature{
			MessageDigest: &protocommon.HashOutput{Algorithm: algorithm, Digest: message.Digest()}, Signature: message.Signature(),
		}}
		return
	}
	envelope := content.EnvelopeContent().RawEnvelope()
	payload, err := envelope.DecodeB64Payload()
	w.must(err)
	to.Content = &protobundle.Bundle_DsseEnvelope{DsseEnvelope: &protodsse.Envelope{
		Payload: payload, PayloadType: envelope.PayloadType,
		Signatures: []*protodsse.Signature{{Sig: content.Signature()}},
	}}
}
