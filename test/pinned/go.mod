// What builds the programs of other projects for the tests. It needs nothing but the standard library, since the modules that
// pin the programs use it, and what they need decides what is built.
module github.com/hallmark-admission/hallmark/test/pinned

go 1.26.0
