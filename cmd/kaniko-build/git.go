package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"kaniko-build/schema"
	"kaniko-build/schema/diag"
)

// gitFact asks git for one fact of the work tree.
func gitFact(ctx context.Context, dir, fact string) (string, error) {
	args := map[string][]string{
		"sha":    {"rev-parse", "--verify", "HEAD"},
		"branch": {"branch", "--show-current"},
		"tag":    {"describe", "--tags", "--exact-match", "HEAD"},
		"url":    {"remote", "get-url", "origin"},
		"dirty":  {"status", "--porcelain"},
	}[fact]
	if args == nil {
		return "", fmt.Errorf("internal error: no git fact %q", fact)
	}
	c := exec.CommandContext(ctx, "git", args...)
	c.Dir = dir
	var out, errs bytes.Buffer
	c.Stdout, c.Stderr = &out, &errs
	err := c.Run()
	text := strings.TrimSpace(out.String())
	var exit *exec.ExitError
	switch {
	case errors.Is(err, exec.ErrNotFound):
		return "", fmt.Errorf("git is not installed: %w", schema.ErrNoGit)
	case errors.As(err, &exit) && (fact == "tag" || fact == "url"):
		return "", nil // none
	case errors.As(err, &exit):
		return "", fmt.Errorf("git %s: %s: %w", args[0], strings.TrimSpace(errs.String()), schema.ErrNoGit)
	case err != nil:
		return "", fmt.Errorf("ask git: %w", err)
	case fact == "dirty":
		return fmt.Sprint(text != ""), nil
	}
	return text, nil
}

// commitTime is when the commit was made that is checked out in dir: 0 outside
// of git. It asks git with what the environment says of it.
func commitTime(ctx context.Context, dir string) (int64, error) {
	for d := dir; ; d = filepath.Dir(d) {
		if _, err := os.Lstat(filepath.Join(d, ".git")); err == nil {
			break
		}
		if d == filepath.Dir(d) {
			return 0, nil
		}
	}
	c := exec.CommandContext(ctx, "git", "-C", dir, "log", "-1", "--format=%ct")
	c.Env = append(os.Environ(), "LC_ALL=C")
	var out, errs bytes.Buffer
	c.Stdout, c.Stderr = &out, &errs
	err := c.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) && strings.Contains(errs.String(), "does not have any commits yet") {
		return 0, nil
	}
	var n int64
	if err == nil {
		n, err = strconv.ParseInt(strings.TrimSpace(out.String()), 10, 64)
	} else if text := strings.TrimSpace(errs.String()); text != "" {
		err = errors.New(oneLine(text))
	}
	if err != nil {
		return 0, &diag.Problem{What: fmt.Sprintf("reproducible: the time of the commit in %s: %v", dir, err), Hint: "set SOURCE_DATE_EPOCH to the time that files get at most"}
	}
	return n, nil
}
