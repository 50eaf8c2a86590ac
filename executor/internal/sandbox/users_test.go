package sandbox

import (
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// TestAsOrdinaryUsers runs this package's other tests again as two ordinary
// users, one with subordinate ids and one without.
func TestAsOrdinaryUsers(t *testing.T) {
	needRoot(t)
	if os.Getenv("SANDBOX_TEST_RUNG") != "" {
		t.Skip("not again")
	}
	for _, tool := range []string{"useradd", "userdel", "newuidmap"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("needs %s (Debian: passwd, uidmap): %v", tool, err)
		}
	}
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("/var/tmp", "sandbox-users-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	binary := filepath.Join(dir, "sandbox.test")
	if err := os.WriteFile(binary, self, 0o755); err != nil {
		t.Fatal(err)
	}
	helper := filepath.Join(dir, "helper")
	if data, err := os.ReadFile(helperPath(t)); err != nil {
		t.Fatal(err)
	} else if err := os.WriteFile(helper, data, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		rung   Rung
		subids bool
	}{{Userns, true}, {UsernsSingle, false}} {
		t.Run(string(c.rung), func(t *testing.T) {
			u := makeUser(t, c.subids)
			// Home is the work directory: nothing of the test needs more.
			cmd := exec.CommandContext(t.Context(), binary, "-test.v", "-test.timeout=120s", "-test.run="+userTests())
			cmd.Dir = dir
			cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=/nonexistent", "TMPDIR=/var/tmp", "SANDBOX_TEST_HELPER=" + helper, "SANDBOX_TEST_RUNG=" + string(c.rung)}
			uid, _ := strconv.Atoi(u.Uid)
			gid, _ := strconv.Atoi(u.Gid)
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
			out, err := cmd.CombinedOutput()
			for line := range strings.Lines(string(out)) {
				if !strings.HasPrefix(line, "=== ") {
					t.Log(strings.TrimRight(line, "\n"))
				}
			}
			if err != nil {
				t.Errorf("as %s: %v", u.Username, err)
			}
		})
	}
}

// userTests are the tests whose result depends on the user.
func userTests() string {
	if p := os.Getenv("SANDBOX_TEST_PATTERN"); p != "" {
		return p
	}
	return "^(TestProbe|TestNode|TestRun|TestSingle)"
}

// makeUser makes an ordinary user for the time of the test.
func makeUser(t *testing.T, subids bool) *user.User {
	t.Helper()
	name := fmt.Sprintf("kbtest%d%.1s", os.Getpid(), strconv.FormatBool(subids))
	args := []string{"--no-create-home", "--shell", "/bin/sh"}
	if !subids {
		args = append(args, "-K", "SUB_UID_COUNT=0", "-K", "SUB_GID_COUNT=0")
	}
	if out, err := exec.Command("useradd", append(args, name)...).CombinedOutput(); err != nil {
		t.Skipf("needs useradd to work: %v: %s", err, out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("userdel", name).CombinedOutput(); err != nil {
			t.Errorf("userdel: %v: %s", err, out)
		}
	})
	if subids {
		first := freeSub(look().Used)
		r := fmt.Sprintf("%d-%d", first, first+Ids-1)
		if data, _ := os.ReadFile("/etc/subuid"); !strings.Contains(string(data), name+":") {
			if out, err := exec.Command("usermod", "--add-subuids", r, "--add-subgids", r, name).CombinedOutput(); err != nil {
				t.Skipf("needs usermod --add-subuids: %v: %s", err, out)
			}
		}
	}
	u, err := user.Lookup(name)
	if err != nil {
		t.Fatal(err)
	}
	return u
}
