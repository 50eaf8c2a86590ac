package main

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"kaniko-build/executor"
	"kaniko-build/graph"
	"kaniko-build/plan"
	"kaniko-build/schema"
	"kaniko-build/schema/diag"
)

// grant adds the secrets and agents that a target may use.
func (w *workspace) grant(r *executor.Request, t *schema.Target) error {
	var l diag.List
	for _, g := range t.Secrets {
		for _, s := range w.manifest.Secrets {
			if s.ID != g.ID {
				continue
			}
			file, err := w.secretPath(s.File)
			if err != nil {
				return err
			}
			if s.Optional {
				if _, set := os.LookupEnv(s.Env); s.Env != "" && !set {
					continue
				}
				if _, err := os.Stat(file); s.Env == "" && errors.Is(err, fs.ErrNotExist) {
					continue
				}
			}
			if _, set := os.LookupEnv(s.Env); s.Env != "" && !set {
				l.Add(s.Pos, "set it, or make the secret optional", "secret %q: the variable %s is not set", s.ID, s.Env)
			}
			if _, err := os.Stat(file); s.Env == "" && errors.Is(err, fs.ErrNotExist) {
				l.Add(s.Pos, "write it, or make the secret optional", "secret %q: there is no file %s", s.ID, s.File)
			}
			r.Secrets = append(r.Secrets, executor.Secret{ID: g.As, File: file, Env: s.Env})
		}
	}
	for _, name := range t.SSH {
		agent := executor.SSH{ID: name.Name}
		for _, s := range w.manifest.SSH {
			if s.ID != name.Name {
				continue
			}
			for _, k := range s.Keys {
				file, err := w.secretPath(k)
				if err != nil {
					return err
				}
				if _, err := os.Stat(file); errors.Is(err, fs.ErrNotExist) {
					l.Add(s.Pos, "write it, or take it out of keys", "ssh agent %q: there is no file %s", s.ID, k)
				}
				agent.Paths = append(agent.Paths, file)
			}
		}
		if len(agent.Paths) == 0 {
			sock := os.Getenv("SSH_AUTH_SOCK")
			if sock == "" {
				l.Add(name.Pos, "start ssh-agent, or list keys under ssh:", "ssh %q needs an agent, and SSH_AUTH_SOCK is not set", name.Name)
				continue
			}
			agent.Paths = []string{sock}
		}
		r.SSH = append(r.SSH, agent)
	}
	return l.Err()
}

func (w *workspace) secretPath(p string) (string, error) {
	if rest, ok := strings.CutPrefix(p, "~/"); ok {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", fmt.Errorf("find the home directory: %w", err)
		}
		return filepath.Join(home, rest), nil
	}
	if p == "" {
		return "", nil
	}
	return w.path(p), nil
}

// granted gives requests the secrets and agents that their targets may use. One
// that is missing and not optional is a mistake, before any node starts.
func (w *workspace) granted(p *plan.Plan, requests []executor.Request) error {
	var l diag.List
	for i := range requests {
		err := w.grant(&requests[i], p.Node(graph.ID(requests[i].ID)).Target)
		if w.keepGoing {
			requests[i].Mistake = cmp.Or(requests[i].Mistake, err)
		} else {
			l.AddErr(diag.Pos{}, err)
		}
	}
	return l.Err()
}
