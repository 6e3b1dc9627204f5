// The real cosign programs for tests, apart from the product's go.mod. The programs are built in v2 and v3, and
// what asks the product is built from testdata with the product's module.
module github.com/hallmark-admission/hallmark/test/cosign

go 1.26.0

require github.com/hallmark-admission/hallmark/test/pinned v0.0.0

replace github.com/hallmark-admission/hallmark/test/pinned => ../pinned
