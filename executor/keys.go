package executor

import (
	"fmt"

	"github.com/opencontainers/go-digest"

	"kaniko-build/executor/internal/dockerfile"
	"kaniko-build/executor/internal/snapshot"
	"kaniko-build/executor/internal/store"
)

// keyScheme salts every key; it changes whenever the meaning of a line does.
const keyScheme = "kaniko-build key 2"

// hashLines makes a key of its inputs under our scheme.
func hashLines(lines []string) store.Key { return store.KeyOf(append([]string{keyScheme}, lines...)) }

// A step has two keys. By definition: what it and all before it were told to
// do, known before anything runs. By content: what the file system below it
// is and what it reads, known once those before it have run; it stops a change
// that made no difference from going further. The lines of both are the same
// but for those that stand for something made by another step.

// startLines begin a stage by definition on a base image or on nothing. Only
// what the file system is counts: the configuration is in the lines of each
// step that it can change.
func startLines(platform string, diffIDs []digest.Digest) []string {
	lines := []string{"start", "platform " + platform}
	for _, d := range diffIDs {
		lines = append(lines, "layer "+d.String())
	}
	return lines
}

// parentLine stands for the state below a step: by definition the key of the
// step before, by content the layers that are there.
func parentLine(parent store.Key) string { return fmt.Sprintf("parent %x", parent) }

// over stands, by definition, for the state after a step that ran on parent. The
// key of a linked copy says nothing of what is below it, and what follows sees
// both.
func (s *jobStep) over(parent store.Key) store.Key {
	if s.Copy == nil || !s.Copy.Link {
		return s.Key
	}
	return hashLines([]string{"linked", parentLine(parent), parentLine(s.Key)})
}

func contentParent(chain []digest.Digest) store.Key {
	return hashLines(startLines("", chain))
}

// sourceLines answers what a step reads from src below the paths it names.
type sourceLines func(src dockerfile.Source, paths []string) ([]string, error)

// runLines are the inputs of a RUN. granted tells whether a secret or agent is
// there; its value is no input.
func runLines(r *dockerfile.Run, read sourceLines, granted func(m dockerfile.Mount) bool) ([]string, error) {
	lines := []string{"run"}
	for _, a := range r.Argv {
		lines = append(lines, "argv "+a)
	}
	for _, e := range r.Env {
		lines = append(lines, "env "+e)
	}
	lines = append(lines, "user "+r.User, "dir "+r.Dir, "network "+r.Network, "hostname "+r.Hostname)
	for _, f := range r.Files {
		lines = append(lines, fmt.Sprintf("file %s %o %s", f.Path, f.Mode, f.Data))
	}
	for _, h := range r.ExtraHosts {
		lines = append(lines, "host "+h.Host+" "+h.IP)
	}
	if r.ShmSize != 0 {
		lines = append(lines, fmt.Sprintf("shm %d", r.ShmSize))
	}
	for _, m := range r.Mounts {
		mode := "default"
		if m.Mode != nil {
			mode = fmt.Sprintf("%o", *m.Mode)
		}
		lines = append(lines,
			"mount "+m.Type, "target "+m.Target, "source "+m.Source, "id "+m.ID, "sharing "+m.Sharing, "secret-env "+m.Env,
			fmt.Sprintf("readonly %v required %v mode %s uid %d gid %d size %d", m.ReadOnly, m.Required, mode, m.UID, m.GID, m.Size))
		switch m.Type {
		case dockerfile.MountSecret, dockerfile.MountSSH:
			lines = append(lines, fmt.Sprintf("granted %v", granted(m)))
		case dockerfile.MountBind:
			more, err := read(m.From, []string{m.Source})
			if err != nil {
				return nil, err
			}
			lines = append(lines, more...)
		case dockerfile.MountCache:
			if m.From.Kind == dockerfile.FromScratch || m.From == (dockerfile.Source{}) {
				continue
			}
			more, err := read(m.From, []string{m.Source})
			if err != nil {
				return nil, err
			}
			lines = append(lines, more...)
		}
	}
	return lines, nil
}

// copyLines are the inputs of a COPY or ADD but for the files themselves.
func copyLines(c *dockerfile.Copy) []string {
	unpack := "default"
	if c.Unpack != nil {
		unpack = fmt.Sprint(*c.Unpack)
	}
	lines := []string{
		fmt.Sprintf("copy add %v link %v parents %v unpack %s", c.Add, c.Link, c.Parents, unpack),
		"dest " + c.Dest, "chown " + c.Chown, "chmod " + c.Chmod,
	}
	for _, s := range c.Sources {
		lines = append(lines, "pattern "+s)
	}
	for _, e := range c.Exclude {
		lines = append(lines, "exclude "+e)
	}
	for _, f := range c.Inline {
		lines = append(lines, fmt.Sprintf("inline %s %o %s", f.Path, f.Mode, f.Data))
	}
	return lines
}

func workdirLines(w *dockerfile.Workdir) []string {
	lines := []string{"workdir " + w.Path, "user " + w.User}
	if w.Epoch != nil {
		lines = append(lines, fmt.Sprintf("epoch %d", *w.Epoch))
	}
	return lines
}

// leftOutLines are what the options leave out of the result of a step, or may
// miss in that of a RUN.
func leftOutLines(o Options, run bool) []string {
	var lines []string
	for _, p := range o.IgnorePaths {
		lines = append(lines, "left out "+p)
	}
	if m := snapshot.Mode(o.SnapshotMode); run && m != "" && m != snapshot.Full {
		lines = append(lines, "changes by "+string(m))
	}
	return lines
}
