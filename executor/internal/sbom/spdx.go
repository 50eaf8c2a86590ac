package sbom

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
)

// PredicateType is what in-toto calls a document of SPDX.
const PredicateType = "https://spdx.dev/Document"

// Image is what a document is about.
type Image struct {
	Name    string          // as people write it, "" for one without
	PURL    string          // "" without a name
	Digest  digest.Digest   // of its manifest
	Layers  []digest.Digest // blobs, the lowest first
	Created time.Time       // when it was made
}

// The parts of SPDX 2.3 that are written (its schemas/spdx-schema.json).
type (
	document struct {
		SPDXVersion       string         `json:"spdxVersion"`
		DataLicense       string         `json:"dataLicense"`
		SPDXID            string         `json:"SPDXID"`
		Name              string         `json:"name"`
		DocumentNamespace string         `json:"documentNamespace"`
		CreationInfo      creation       `json:"creationInfo"`
		Packages          []spdxPackage  `json:"packages"`
		Files             []spdxFile     `json:"files,omitempty"`
		Relationships     []relationship `json:"relationships"`
	}
	creation struct {
		Created  string   `json:"created"`
		Creators []string `json:"creators"`
		Comment  string   `json:"comment,omitempty"`
	}
	spdxPackage struct {
		SPDXID           string        `json:"SPDXID"`
		Name             string        `json:"name"`
		VersionInfo      string        `json:"versionInfo,omitempty"`
		Supplier         string        `json:"supplier,omitempty"`
		DownloadLocation string        `json:"downloadLocation"`
		FilesAnalyzed    bool          `json:"filesAnalyzed"`
		SourceInfo       string        `json:"sourceInfo,omitempty"`
		LicenseConcluded string        `json:"licenseConcluded"`
		LicenseDeclared  string        `json:"licenseDeclared"`
		LicenseComments  string        `json:"licenseComments,omitempty"`
		CopyrightText    string        `json:"copyrightText"`
		Checksums        []checksum    `json:"checksums,omitempty"`
		ExternalRefs     []externalRef `json:"externalRefs,omitempty"`
		Purpose          string        `json:"primaryPackagePurpose,omitempty"`
	}
	spdxFile struct {
		SPDXID             string     `json:"SPDXID"`
		FileName           string     `json:"fileName"`
		Checksums          []checksum `json:"checksums"`
		LicenseConcluded   string     `json:"licenseConcluded"`
		LicenseInfoInFiles []string   `json:"licenseInfoInFiles"`
		CopyrightText      string     `json:"copyrightText"`
		Comment            string     `json:"comment"`
	}
	checksum struct {
		Algorithm string `json:"algorithm"`
		Value     string `json:"checksumValue"`
	}
	externalRef struct {
		Category string `json:"referenceCategory"`
		Type     string `json:"referenceType"`
		Locator  string `json:"referenceLocator"`
	}
	relationship struct {
		Element string `json:"spdxElementId"`
		Type    string `json:"relationshipType"`
		Related string `json:"relatedSpdxElement"`
		Comment string `json:"comment,omitempty"`
	}
)

const (
	noAssertion = "NOASSERTION"
	documentID  = "SPDXRef-DOCUMENT"
	imageID     = "SPDXRef-Image"
	// evident is syft's words for the relation of a package to the file that tells of it.
	evident = "evident-by: indicates the package's existence is evident by the given file"
)

// managers are what tells of packages, for people.
var managers = map[Kind]string{
	Deb: "dpkg's database", Apk: "apk's database", Rpm: "rpm's database", Golang: "a Go program's build information",
	Npm: "a package.json or lock file of npm", PyPI: "metadata of a Python package",
}

// Document writes the packages of an image down as SPDX 2.3, each with its package URL
// and the files that tell of it, which name their layer as BuildKit does. It depends on
// nothing but its arguments.
func (c Contents) Document(i Image) ([]byte, error) {
	d := document{
		SPDXVersion: "SPDX-2.3", DataLicense: "CC0-1.0", SPDXID: documentID, Name: i.Name,
		CreationInfo: creation{Created: i.Created.UTC().Format("2006-01-02T15:04:05Z"), Creators: []string{"Organization: kaniko-build", "Tool: kaniko-build-sbom-" + Scheme}},
	}
	if d.Name == "" {
		d.Name = i.Digest.String()
	}
	if len(c.Notes) > 0 { // who reads it is to know what it lacks
		d.CreationInfo.Comment = "The list is not complete.\n" + strings.Join(c.Notes, "\n")
	}
	image := spdxPackage{
		SPDXID: imageID, Name: d.Name, VersionInfo: i.Digest.String(), DownloadLocation: noAssertion, LicenseConcluded: noAssertion,
		LicenseDeclared: noAssertion, CopyrightText: noAssertion, Supplier: noAssertion, Purpose: "CONTAINER",
		Checksums: []checksum{{strings.ToUpper(i.Digest.Algorithm().String()), i.Digest.Encoded()}},
	}
	if i.PURL != "" {
		image.ExternalRefs = []externalRef{{"PACKAGE-MANAGER", "purl", i.PURL}}
	}
	d.Packages = []spdxPackage{image}
	d.Relationships = []relationship{{Element: documentID, Type: "DESCRIBES", Related: imageID}}
	ids := map[Package]string{}
	var all []Package
	for _, f := range c.Files {
		for _, p := range f.Packages {
			if ids[p] == "" {
				ids[p] = p.id()
				all = append(all, p)
			}
		}
	}
	slices.SortFunc(all, compare)
	for _, p := range all {
		s := spdxPackage{
			SPDXID: ids[p], Name: p.Name, VersionInfo: p.Version, DownloadLocation: noAssertion, LicenseConcluded: noAssertion, LicenseDeclared: noAssertion,
			CopyrightText: noAssertion, Supplier: noAssertion, SourceInfo: "found in " + managers[p.Kind],
			ExternalRefs: []externalRef{{"PACKAGE-MANAGER", "purl", p.PURL(c.Release)}},
		}
		if p.Epoch != 0 {
			s.VersionInfo = fmt.Sprintf("%d:%s", p.Epoch, p.Version)
		}
		if p.License != "" { // whatever stands there: no expression of SPDX's for sure
			s.LicenseComments = "The package says: " + p.License
		}
		d.Packages = append(d.Packages, s)
		d.Relationships = append(d.Relationships, relationship{Element: imageID, Type: "CONTAINS", Related: ids[p]})
	}
	for _, f := range c.Files {
		id := "SPDXRef-File-" + short(f.Path)
		s := spdxFile{
			SPDXID: id, FileName: "/" + f.Path, Checksums: []checksum{{"SHA1", f.SHA1}},
			LicenseConcluded: noAssertion, LicenseInfoInFiles: []string{noAssertion}, CopyrightText: noAssertion,
		}
		if f.Layer < len(i.Layers) {
			s.Comment = "layerID: " + i.Layers[f.Layer].String()
		}
		d.Files = append(d.Files, s)
		for _, p := range f.Packages {
			d.Relationships = append(d.Relationships, relationship{ids[p], "OTHER", id, evident})
		}
	}
	// A namespace is for one document alone: this one of spdx.org is for those who
	// have no place of their own (SPDX 2.3, 6.5).
	h := sha256.New()
	fmt.Fprintf(h, "%q %q %q %q %q %d %q %q\n", Scheme, i.Name, i.PURL, i.Digest, i.Layers, i.Created.Unix(), c.Release, c.Notes)
	for _, p := range all {
		fmt.Fprintln(h, ids[p])
	}
	for _, f := range d.Files {
		fmt.Fprintf(h, "%q %q %q\n", f.FileName, f.Checksums, f.Comment)
	}
	sum := h.Sum(nil)
	d.DocumentNamespace = fmt.Sprintf("https://spdx.org/spdxdocs/kaniko-build-%x-%x-%x-%x-%x", sum[:4], sum[4:6], sum[6:8], sum[8:10], sum[10:16])
	b, err := json.Marshal(d)
	if err != nil {
		return nil, fmt.Errorf("write SPDX: %w", err)
	}
	return b, nil
}

// id is the package's identifier in a document: letters, digits, dots and hyphens.
func (p Package) id() string {
	name := strings.Map(func(r rune) rune {
		if r < 0x80 && strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-", r) {
			return r
		}
		return '-'
	}, p.Name)
	return fmt.Sprintf("SPDXRef-Package-%s-%s-%s", p.Kind, name[:min(len(name), 100)], short(fmt.Sprintf("%q %q %q %q %d", p.Name, p.Version, p.Arch, p.Source, p.Epoch)+p.License))
}

func short(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:8])
}
