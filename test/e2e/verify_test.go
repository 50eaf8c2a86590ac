package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"kaniko-build/test/mirror"
	"kaniko-build/test/rig"
)

// keyRecord is a key as it lies in the store, with what the test does not look
// at.
type keyRecord map[string]any

func (k keyRecord) holds(words ...string) bool {
	lines, _ := k["lines"].([]any)
	for _, w := range words {
		if !slices.ContainsFunc(lines, func(l any) bool { return strings.Contains(l.(string), w) }) {
			return false
		}
	}
	return true
}

// keys reads all keys of a store.
func keys(t *testing.T, state string) map[string]keyRecord {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(state, "keys", "*", "*"))
	if err != nil || len(names) == 0 {
		t.Fatalf("no keys: %v", err)
	}
	out := map[string]keyRecord{}
	for _, n := range names {
		b, err := os.ReadFile(n)
		if err != nil {
			t.Fatal(err)
		}
		var k keyRecord
		if err := json.Unmarshal(b, &k); err != nil {
			t.Fatal(err)
		}
		out[n] = k
	}
	return out
}

// TestVerifyFindsAPoisonedKey lets a key lead to the layer of another step. The
// build takes it, as it must; --verify-cache finds it and names the step. A step
// that makes something else each time is not taken for that.
func TestVerifyFindsAPoisonedKey(t *testing.T) {
	rig.NeedRoot(t)
	bases := rig.StartMirror(t, mirror.Busybox, mirror.Debian)
	for _, kind := range []rig.Kind{rig.Superuser, rig.Subuid} { // with files of others to clean up, and without
		t.Run(string(kind), func(t *testing.T) {
			a, binary := rig.NewAccount(t, kind), rig.Binary(t)
			dir := rig.Space(t, nil)
			rig.Write(t, dir, map[string]string{
				"poison/Dockerfile": "FROM busybox\nRUN echo first > /first\nRUN mkdir /d && echo second > /d/second\nRUN echo third > /third\n",
				"chance/Dockerfile": "FROM debian\nRUN date +%N > /t\nRUN echo steady > /s && touch -d @1000 /old\n",
			})
			rig.Give(t, dir, a)
			state := filepath.Join(rig.Space(t, a), "state")
			build := func(what string, flags ...string) rig.Output {
				argv := append([]string{binary, "build", "--progress", "plain", "--registry-mirror", "docker.io=" + bases.Addr}, flags...)
				return a.Run(t, rig.Call{Dir: dir, Env: []string{"KANIKO_BUILD_STATE=" + state}, Timeout: 3 * time.Minute}, append(argv, what)...)
			}
			if o := build("poison", "--verify-cache=all"); o.Code != 0 || !strings.Contains(o.Stderr, "verified 1 of 1 images, 3 steps") {
				t.Fatalf("a build without fault ends with %d\n%s", o.Code, o.Tail(20))
			}

			all := keys(t, state)
			var other string
			for _, k := range all {
				if k.holds("echo first") {
					other = k["diffID"].(string)
				}
			}
			poisoned := 0
			for name, k := range all {
				if !k.holds("echo second") {
					continue
				}
				k["diffID"] = other
				b, err := json.Marshal(k)
				if err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(name, b, 0o644); err != nil {
					t.Fatal(err)
				}
				poisoned++
			}
			if poisoned != 2 { // by definition and by content
				t.Fatalf("%d keys were poisoned, want 2", poisoned)
			}
			if o := build("poison"); o.Code != 0 {
				t.Fatalf("the poisoned build ends with %d\n%s", o.Code, o.Tail(20))
			}
			o := build("poison", "--verify-cache=all")
			if o.Code != 5 {
				t.Errorf("a wrong hit ends with %d, want 5\n%s", o.Code, o.Tail(20))
			}
			for _, want := range []string{"wrong: [2] RUN mkdir /d", "Dockerfile:3:1", "/d/second is missing", "/first is there, and should not be", "the cache gave a wrong result"} {
				if !strings.Contains(o.Stderr, want) {
					t.Errorf("the report does not hold %q:\n%s", want, o.Tail(20))
				}
			}
			for _, not := range []string{"not deterministic", "echo first > /first (", "echo third > /third ("} {
				if strings.Contains(o.Stderr, not) {
					t.Errorf("the report holds %q:\n%s", not, o.Tail(20))
				}
			}

			o = build("chance", "--verify-cache=all")
			if o.Code != 6 {
				t.Errorf("a step of chance ends with %d, want 6\n%s", o.Code, o.Tail(20))
			}
			if want := "not deterministic: [1] RUN date +%N > /t"; !strings.Contains(o.Stderr, want) || strings.Contains(o.Stderr, "wrong") {
				t.Errorf("the report does not hold %q, or calls it wrong:\n%s", want, o.Tail(20))
			}
			if strings.Contains(o.Stderr, "RUN echo steady > /s && touch -d @1000 /old (") {
				t.Errorf("a steady step is reported:\n%s", o.Tail(20))
			}
			if left := rig.Leftovers(state, binary); len(left) > 0 {
				t.Errorf("left behind:\n  %s", strings.Join(left, "\n  "))
			}
		})
	}
}
