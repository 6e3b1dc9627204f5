package main

import (
	"bytes"
	"fmt"
	"regexp"
	"runtime/debug"
	"strings"
	"time"

	"github.com/package-url/packageurl-go"
	spdxjson "github.com/spdx/tools-golang/json"
	"github.com/spdx/tools-golang/spdx"
	"github.com/spdx/tools-golang/spdx/v2/common"
	"github.com/spdx/tools-golang/spdxlib"
	"github.com/spdx/tools-golang/utils"
	"golang.org/x/mod/module"
)

const (
	spdxPredicate = "https://spdx.dev/Document" // of a bill of materials in an attestation
	namespace     = "https://hallmark.dev/spdx/"
	product       = "hallmark"
)

// A bill is a bill of materials while it is written (SPDX 2.3, https://spdx.github.io/spdx-spec/v2.3).
type bill struct {
	document *spdx.Document
	licenses *licenses
	version  string
}

// newBill begins one about something with this hash, which makes its name unique and the same for the same thing.
func newBill(l *licenses, what, version, hash string, created time.Time) *bill {
	return &bill{licenses: l, version: version, document: &spdx.Document{
		SPDXVersion: spdx.Version, DataLicense: spdx.DataLicense, SPDXIdentifier: "DOCUMENT",
		DocumentName: what, DocumentNamespace: namespace + what + "-" + version + "-" + hash,
		CreationInfo: &spdx.CreationInfo{
			Creators: []common.Creator{{CreatorType: "Tool", Creator: "hallmark-test-release"}, {CreatorType: "Organization", Creator: "Hallmark"}},
			Created:  created.Format(time.RFC3339),
		},
	}}
}

// billOfBinary is one of a program by itself.
func billOfBinary(l *licenses, b binary, version string, created time.Time) ([]byte, error) {
	bill := newBill(l, b.name, version, sha256Hex(b.content), created)
	id := bill.addProgram(b)
	bill.relate("DOCUMENT", "DESCRIBES", id)
	return bill.encode()
}

// billOfImage is one of an image, or of an index with all images in it.
func billOfImage(l *licenses, i image, version, repository string, created time.Time) ([]byte, error) {
	bill := newBill(l, product+"-image", version, i.top.Digest.Hex, created)
	if i.index == nil {
		bill.relate("DOCUMENT", "DESCRIBES", bill.addPlatform(i.platforms[0], repository))
		return bill.encode()
	}
	index := bill.addContainer("Index", repository, i.top.Digest.Hex, "")
	bill.relate("DOCUMENT", "DESCRIBES", index)
	for _, p := range i.platforms {
		bill.relate(index, "CONTAINS", bill.addPlatform(p, repository))
	}
	return bill.encode()
}

// billOfPlatform is one of the image for one platform.
func billOfPlatform(l *licenses, p platform, version, repository string, created time.Time) ([]byte, error) {
	bill := newBill(l, product+"-image-"+strings.ReplaceAll(p.name, "/", "-"), version, p.digest.Hex, created)
	bill.relate("DOCUMENT", "DESCRIBES", bill.addPlatform(p, repository))
	return bill.encode()
}

// addContainer adds an image or an index, without its files.
func (b *bill) addContainer(id, repository, hex, architecture string) common.ElementID {
	qualifiers := map[string]string{"repository_url": repository, "tag": b.version}
	if architecture != "" {
		qualifiers["arch"] = architecture
	}
	return b.add(&spdx.Package{
		PackageName: repository, PackageSPDXIdentifier: common.ElementID("Container-" + id), PackageVersion: b.version,
		PackageDownloadLocation: noAssertion, PrimaryPackagePurpose: "CONTAINER", PackageLicenseDeclared: "Apache-2.0",
		PackageChecksums:          []common.Checksum{{Algorithm: common.SHA256, Value: hex}},
		PackageExternalReferences: purl(packageurl.TypeOCI, "", product, "sha256:"+hex, qualifiers),
	})
}

// addPlatform adds an image with all of its files.
func (b *bill) addPlatform(p platform, repository string) common.ElementID {
	name := strings.ReplaceAll(p.name, "/", "-")
	id := b.addContainer(name, repository, p.digest.Hex, p.config.Architecture)
	container := b.document.Packages[len(b.document.Packages)-1]
	container.FilesAnalyzed = true
	container.PackageLicenseInfoFromFiles = []string{noAssertion}
	for n, f := range p.files {
		entry := &spdx.File{
			FileName: "./" + f.name, FileSPDXIdentifier: common.ElementID(fmt.Sprintf("File-%s-%d", name, n)), FileTypes: []string{"TEXT"},
			Checksums: []common.Checksum{
				{Algorithm: common.SHA1, Value: sha1Hex(f.content)}, {Algorithm: common.SHA256, Value: sha256Hex(f.content)},
			},
			LicenseConcluded: noAssertion, LicenseInfoInFiles: []string{noAssertion}, FileCopyrightText: noAssertion,
		}
		b.document.Files = append(b.document.Files, entry)
		b.relate(id, "CONTAINS", entry.FileSPDXIdentifier)
		if f.name == p.binary.name {
			entry.FileTypes = []string{"BINARY", "APPLICATION"}
			program := b.addProgram(p.binary)
			b.relate(entry.FileSPDXIdentifier, "GENERATED_FROM", program)
			b.relate(id, "CONTAINS", program)
		}
	}
	code, err := utils.GetVerificationCode(b.document.Files[len(b.document.Files)-len(p.files):], "")
	if err != nil {
		panic(err) // a file that is nil
	}
	container.PackageVerificationCode = &code
	return id
}

// addProgram adds a program and what is linked into it. A module that several programs have is one package.
func (b *bill) addProgram(program binary) common.ElementID {
	platform := program.platform()
	main := program.info.Main
	id := b.add(&spdx.Package{
		PackageName: main.Path, PackageSPDXIdentifier: common.ElementID("Program-" + strings.ReplaceAll(platform, "/", "-")),
		PackageVersion: b.version, PackageFileName: program.name, PackageDownloadLocation: "https://" + main.Path,
		PrimaryPackagePurpose: "APPLICATION", PackageLicenseDeclared: "Apache-2.0",
		PackageChecksums:          []common.Checksum{{Algorithm: common.SHA256, Value: sha256Hex(program.content)}},
		PackageSourceInfo:         "for " + platform + ", built by " + program.info.GoVersion + " from commit " + program.setting("vcs.revision"),
		PackageExternalReferences: golang(main.Path, b.version),
	})
	standard := strings.TrimPrefix(program.info.GoVersion, "go")
	b.relate(id, "DEPENDS_ON", b.add(&spdx.Package{
		PackageName: "stdlib", PackageSPDXIdentifier: "Module-stdlib", PackageVersion: standard,
		PackageDownloadLocation: "https://go.dev/dl/" + program.info.GoVersion + ".src.tar.gz", PrimaryPackagePurpose: "LIBRARY",
		PackageLicenseDeclared: "BSD-3-Clause", PackageExternalReferences: golang("stdlib", standard),
	}))
	for _, m := range program.info.Deps {
		b.relate(id, "DEPENDS_ON", b.addModule(m))
	}
	return id
}

var notInID = regexp.MustCompile(`[^A-Za-z0-9.-]+`)

func (b *bill) addModule(m *debug.Module) common.ElementID {
	return b.add(&spdx.Package{
		PackageName: m.Path, PackageVersion: m.Version, PrimaryPackagePurpose: "LIBRARY",
		PackageSPDXIdentifier:   common.ElementID("Module-" + notInID.ReplaceAllString(m.Path+"-"+m.Version, "-")),
		PackageDownloadLocation: downloadLocation(m),
		PackageSourceInfo:       "go.sum " + m.Sum, PackageLicenseDeclared: b.licenses.of(m),
		PackageExternalReferences: golang(m.Path, m.Version),
	})
}

// add fills in what every package has, unless the package is there already.
func (b *bill) add(p *spdx.Package) common.ElementID {
	for _, there := range b.document.Packages {
		if there.PackageSPDXIdentifier == p.PackageSPDXIdentifier {
			return there.PackageSPDXIdentifier
		}
	}
	p.PackageSupplier = &common.Supplier{Supplier: noAssertion}
	p.PackageLicenseConcluded, p.PackageCopyrightText = noAssertion, noAssertion
	b.document.Packages = append(b.document.Packages, p)
	return p.PackageSPDXIdentifier
}

func (b *bill) relate(from common.ElementID, how string, to common.ElementID) {
	b.document.Relationships = append(b.document.Relationships, &spdx.Relationship{
		RefA: common.DocElementID{ElementRefID: from}, Relationship: how, RefB: common.DocElementID{ElementRefID: to},
	})
}

// encode writes the document, reads it back and checks it, so that no tool finds out first that it is broken.
func (b *bill) encode() ([]byte, error) {
	var text bytes.Buffer
	if err := spdxjson.Write(b.document, &text, spdxjson.Indent(" "), spdxjson.EscapeHTML(false)); err != nil {
		return nil, fmt.Errorf("write the bill of materials of %s: %w", b.document.DocumentName, err)
	}
	read, err := spdxjson.Read(bytes.NewReader(text.Bytes()))
	if err == nil {
		err = spdxlib.ValidateDocument(read)
	}
	if err != nil {
		return nil, fmt.Errorf("the bill of materials of %s is not valid: %w", b.document.DocumentName, err)
	}
	return text.Bytes(), nil
}

func golang(path, version string) []*spdx.PackageExternalReference {
	at := strings.LastIndex(path, "/")
	return purl(packageurl.TypeGolang, path[:max(at, 0)], path[at+1:], version, nil)
}

func purl(kind, space, name, version string, qualifiers map[string]string) []*spdx.PackageExternalReference {
	locator := packageurl.NewPackageURL(kind, space, name, version, packageurl.QualifiersFromMap(qualifiers), "").ToString()
	return []*spdx.PackageExternalReference{{Category: "PACKAGE-MANAGER", RefType: "purl", Locator: locator}}
}

// downloadLocation is where everybody gets a module from.
func downloadLocation(m *debug.Module) string {
	path, pathErr := module.EscapePath(m.Path)
	version, versionErr := module.EscapeVersion(m.Version)
	if pathErr != nil || versionErr != nil {
		return noAssertion
	}
	return "https://proxy.golang.org/" + path + "/@v/" + version + ".zip"
}
