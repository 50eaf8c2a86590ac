// Package cases reads the corpus's test cases and lays them out for a build.
package corpus

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"time"

	"golang.org/x/sys/unix"
	"gopkg.in/yaml.v3"
)

// Epoch is the modification time of every context file that setup.sh does not
// give another one.
const Epoch = 1700000000

// ServerAddr is where the content of a case's www directory is served while
// it is built, below /NAME/.
const ServerAddr = "127.0.0.1:8930"

// Secret is one build secret: the content of a file, or a value.
type Secret struct {
	ID    string `yaml:"id" json:"id"`
	File  string `yaml:"file" json:"file,omitempty"` // relative to the case directory
	Value string `yaml:"value" json:"value,omitempty"`
}

// SSH is one agent: a private key file to be served under an id.
type SSH struct {
	ID  string `yaml:"id" json:"id"`
	Key string `yaml:"key" json:"key"` // relative to the case directory
}

// Case is one case.yaml.
type Case struct {
	Name string `yaml:"-" json:"name"`
	Dir  string `yaml:"-" json:"dir"` // where the case (or its prepared copy) is

	Description   string            `yaml:"description" json:"description"`
	Tags          []string          `yaml:"tags" json:"tags,omitempty"`
	Dockerfile    string            `yaml:"dockerfile" json:"dockerfile"` // default "Dockerfile"
	Target        string            `yaml:"target" json:"target,omitempty"`
	Platform      string            `yaml:"platform" json:"platform,omitempty"`
	BuildArgs     map[string]string `yaml:"build_args" json:"build_args,omitempty"`
	Labels        map[string]string `yaml:"labels" json:"labels,omitempty"`
	Secrets       []Secret          `yaml:"secrets" json:"secrets,omitempty"`
	SSH           []SSH             `yaml:"ssh" json:"ssh,omitempty"`
	NamedContexts map[string]string `yaml:"named_contexts" json:"named_contexts,omitempty"` // "dir:PATH" or "image:REF"
	Env           map[string]string `yaml:"env" json:"env,omitempty"`
	Rewrite       bool              `yaml:"rewrite_timestamp" json:"rewrite_timestamp,omitempty"`
	Needs         []string          `yaml:"needs" json:"needs,omitempty"`

	Expect  string   `yaml:"expect" json:"expect"`                       // "ok" or "error"
	Errors  []string `yaml:"errors" json:"errors,omitempty"`             // each must be in the message; "a|b": either
	ErrorAt string   `yaml:"error_at" json:"error_at,omitempty"`         // "Dockerfile:3"; must be in the message too
	MTime   string   `yaml:"mtime" json:"mtime"`                         // "check", "files" (not those of directories) or "ignore"
	Created string   `yaml:"created" json:"created,omitempty"`           // "check": compare creation times
	Layers  string   `yaml:"layers" json:"layers,omitempty"`             // "check": which paths a layer holds matters here
	History string   `yaml:"history" json:"history,omitempty"`           // "check": created_by matters here
	Note    string   `yaml:"note" json:"note,omitempty"`                 // what to know when it fails
	Strip   bool     `yaml:"strip_syntax" json:"strip_syntax,omitempty"` // golden made without the "# syntax=" line
}

// Load reads the case in dir.
func Load(dir string) (*Case, error) {
	b, err := os.ReadFile(filepath.Join(dir, "case.yaml"))
	if err != nil {
		return nil, err
	}
	c := &Case{}
	dec := yaml.NewDecoder(bytes.NewReader(b))
	dec.KnownFields(true)
	if err := dec.Decode(c); err != nil {
		return nil, fmt.Errorf("%s: %w", dir, err)
	}
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	c.Dir, c.Name = abs, filepath.Base(abs)
	if c.Dockerfile == "" {
		c.Dockerfile = "Dockerfile"
	}
	if c.MTime == "" {
		c.MTime = "check"
	}
	switch {
	case c.Description == "":
		return nil, fmt.Errorf("%s: no description", dir)
	case c.Expect != "ok" && c.Expect != "error":
		return nil, fmt.Errorf("%s: expect must be ok or error", dir)
	case c.Expect == "error" && len(c.Errors) == 0 && c.ErrorAt == "":
		return nil, fmt.Errorf("%s: an expected error needs errors or error_at", dir)
	case c.MTime != "check" && c.MTime != "files" && c.MTime != "ignore":
		return nil, fmt.Errorf("%s: mtime must be check, files or ignore", dir)
	}
	return c, nil
}

// LoadAll reads every case below dir, by name.
func LoadAll(dir string) ([]*Case, error) {
	names, err := filepath.Glob(filepath.Join(dir, "*", "case.yaml"))
	if err != nil {
		return nil, err
	}
	sort.Strings(names)
	var out []*Case
	for _, n := range names {
		c, err := Load(filepath.Dir(n))
		if err != nil {
			return nil, err
		}
		out = append(out, c)
	}
	return out, nil
}

// Prepare copies the case to dir, which must not exist, and makes it ready to
// build: modes as git would have them (0644, 0755), setup.sh run in the copy,
// and Epoch as the time of whatever setup.sh left with the present time.
func (c *Case) Prepare(dir string) (*Case, error) {
	err := filepath.WalkDir(c.Dir, func(p string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(c.Dir, p)
		if err != nil {
			return err
		}
		to := filepath.Join(dir, rel)
		switch {
		case rel == "golden.json":
			return nil
		case e.IsDir():
			if err := os.MkdirAll(to, 0o755); err != nil {
				return err
			}
			return os.Chmod(to, 0o755)
		case e.Type() == fs.ModeSymlink:
			l, err := os.Readlink(p)
			if err != nil {
				return err
			}
			return os.Symlink(l, to)
		}
		b, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		st, err := e.Info()
		if err != nil {
			return err
		}
		mode := fs.FileMode(0o644)
		if st.Mode()&0o100 != 0 {
			mode = 0o755
		}
		if err := os.WriteFile(to, b, mode); err != nil {
			return err
		}
		return os.Chmod(to, mode)
	})
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Join(dir, "context"), 0o755); err != nil {
		return nil, err
	}
	if _, err := os.Stat(filepath.Join(dir, "setup.sh")); err == nil {
		cmd := exec.Command("sh", "-eu", "setup.sh")
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "LC_ALL=C", "TZ=UTC")
		old := unix.Umask(0o022)
		out, err := cmd.CombinedOutput()
		unix.Umask(old)
		if err != nil {
			return nil, fmt.Errorf("%s: setup.sh: %w\n%s", c.Name, err, out)
		}
	}
	recent := time.Now().Add(-24 * time.Hour)
	var late []string
	err = filepath.WalkDir(dir, func(p string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		st, err := e.Info()
		if err == nil && st.ModTime().After(recent) && st.ModTime().Before(recent.Add(48*time.Hour)) {
			late = append(late, p)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	ts := []unix.Timespec{{Sec: Epoch}, {Sec: Epoch}}
	for _, p := range late {
		if err := unix.UtimesNanoAt(unix.AT_FDCWD, p, ts, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return nil, err
		}
	}
	out := *c
	out.Dir = dir
	return &out, nil
}
