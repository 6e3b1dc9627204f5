// Package config reads the configuration file: strictly, with every mistake at once and its line, and again whenever it
// changes.
//
// A key that is not known is a mistake, and so is a value that could not mean what its author thinks it means: a pattern
// without a boundary, a regular expression that does not compile, a signer that nobody named, an exemption without an
// end. What is merely doubtful is a warning. Load never returns a configuration with a mistake in it, so a bad file can
// not replace a good one.
package config
