package rig

import (
	"encoding/json"
	"os"
	"testing"
)

// Digests are the digests of a --metadata-file: by target, "" for one that was not
// built.
func Digests(t testing.TB, file string) map[string]string {
	t.Helper()
	var m map[string]struct {
		Digest string `json:"containerimage.digest"`
	}
	b, err := os.ReadFile(file)
	if err == nil {
		err = json.Unmarshal(b, &m)
	}
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for name, one := range m {
		out[name] = one.Digest
	}
	return out
}
