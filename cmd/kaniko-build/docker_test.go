package main

import (
	"bytes"
	"os"
	"strings"
	"testing"
)

// TestFlagsOfDocker compares the flags of docker build with those of build and with
// the table of docs/build.md.
func TestFlagsOfDocker(t *testing.T) {
	docs, err := os.ReadFile("../../docs/build.md")
	if err != nil {
		t.Fatal(err)
	}
	c := newBuild(terminal{leave: &leaving{}})
	for name := range strings.FieldsSeq(`add-host allow annotation attest build-arg build-context builder cache-from cache-to call
		cgroup-parent check compress cpu-period cpu-quota cpu-shares cpuset-cpus cpuset-mems debug detach disable-content-trust file
		force-rm iidfile invoke isolation label load memory memory-swap metadata-file network no-cache no-cache-filter output
		platform policy print progress provenance pull push quiet rm root sbom secret security-opt server-config shm-size squash ssh stream tag
		target ulimit`) {
		if c.Flags().Lookup(name) == nil {
			t.Errorf("build has no --%s", name)
		}
		if !bytes.Contains(docs, []byte("`--"+name+"`")) {
			t.Errorf("docs/build.md has no --%s", name)
		}
	}
}
