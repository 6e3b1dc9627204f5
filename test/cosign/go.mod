// The real cosign programs for tests, apart from the product's go.mod. This module imports nothing: the programs are built in
// v2 and v3, and what asks the product is built from testdata with the product's module.
module github.com/hallmark-admission/hallmark/test/cosign

go 1.26.0
