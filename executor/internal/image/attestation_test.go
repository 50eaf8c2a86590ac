package image

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Package URLs are those that BuildKit writes for the same names.
func TestPURL(t *testing.T) {
	amd64 := &ocispec.Platform{OS: "linux", Architecture: "amd64"}
	sum := digest.FromString("x").String()
	for _, c := range []struct {
		ref  string
		p    *ocispec.Platform
		want string
	}{
		{"alpine", amd64, "pkg:docker/alpine@latest?platform=linux%2Famd64"},
		{"docker.io/library/alpine:3.22", nil, "pkg:docker/alpine@3.22"},
		{"docker/dockerfile:1", nil, "pkg:docker/docker/dockerfile@1"},
		{"127.0.0.1:5000/shop/api:1", &ocispec.Platform{OS: "linux", Architecture: "arm", Variant: "v7"}, "pkg:docker/127.0.0.1%3A5000/shop/api@1?platform=linux%2Farm%2Fv7"},
		{"ghcr.io/a/b@" + sum, amd64, "pkg:docker/ghcr.io/a/b?digest=" + sum + "&platform=linux%2Famd64"},
	} {
		n, err := ParseName(c.ref)
		if err != nil {
			t.Fatal(err)
		}
		if got := PURL("docker", n, c.p); got != c.want {
			t.Errorf("%s: got %s, want %s", c.ref, got, c.want)
		}
	}
}

// An attestation is an artifact about the image, in the form that BuildKit
// documents, and the same every time.
func TestAttest(t *testing.T) {
	about := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString("image"), Size: 5, Platform: &ocispec.Platform{OS: "linux", Architecture: "amd64"}}
	name, err := ParseName("reg.example.com/api:1")
	if err != nil {
		t.Fatal(err)
	}
	make := func(names ...Name) (Attestation, []byte) {
		a, err := Attest(about, names, []Predicate{{Type: "https://example.com/p", JSON: json.RawMessage(`{"a": [1, 2]}`)}})
		if err != nil {
			t.Fatal(err)
		}
		st := newStore(t)
		if err := a.Put(st); err != nil {
			t.Fatal(err)
		}
		b, err := st.ReadBlob(a.Manifest.Digest, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		parsed, err := ParseAttestation(b)
		if err != nil {
			t.Fatal(err)
		}
		s, err := st.ReadBlob(parsed.Statements[0].Digest, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := st.Has(parsed.Config.Digest); !ok {
			t.Error("the store has no config")
		}
		return a, s
	}
	a, text := make(name)
	want := `{"_type":"https://in-toto.io/Statement/v1","predicateType":"https://example.com/p","subject":[{"name":"pkg:docker/reg.example.com/api@1?platform=linux%2Famd64",` +
		`"digest":{"sha256":"` + about.Digest.Encoded() + `"}}],"predicate":{"a":[1,2]}}`
	if string(text) != want {
		t.Errorf("got  %s\nwant %s", text, want)
	}
	if !IsAttestation(a.Manifest) || IsAttestation(about) || a.Manifest.Annotations["vnd.docker.reference.digest"] != about.Digest.String() {
		t.Errorf("descriptor %+v", a.Manifest)
	}
	if b, _ := make(name); b.Manifest.Digest != a.Manifest.Digest {
		t.Error("the same made again differs")
	}
	if _, text := make(); !bytes.Contains(text, []byte(`"subject":[{"name":"_",`)) {
		t.Errorf("without a name: %s", text)
	}
}
