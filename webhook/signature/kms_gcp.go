//go:build kms_gcp || kms_all

package signature

import _ "github.com/sigstore/sigstore/pkg/signature/kms/gcp" // registers its scheme
