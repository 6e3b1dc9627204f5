//go:build kms_aws || kms_all

package signature

import _ "github.com/sigstore/sigstore/pkg/signature/kms/aws" // registers its scheme
