//go:build kms_azure || kms_all

package signature

import _ "github.com/sigstore/sigstore/pkg/signature/kms/azure" // registers its scheme
