package progress

import (
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
	"time"

	"kaniko-build/cmd/kaniko-build/internal/logtext"
	"kaniko-build/executor"
	"kaniko-build/schema/diag"
)

// CI says how the log of a CI is structured. The zero value is a log without
// structure.
type CI struct {
	Kind CIKind
	// Dir is where paths of positions start, relative to the root of the
	// repository, for annotations: "" is the root itself.
	Dir string
}

// CIKind names a CI.
type CIKind string

// The CIs whose logs we know.
const (
	GitHub CIKind = "github" // groups and annotations (workflow commands)
	GitLab CIKind = "gitlab" // collapsible sections
)

// DetectCI tells from the environment whose log it is. dir is the directory that
// positions are relative to, absolute.
func DetectCI(getenv func(string) string, dir string) CI {
	switch {
	case getenv("GITHUB_ACTIONS") == "true":
		ci := CI{Kind: GitHub}
		if root := getenv("GITHUB_WORKSPACE"); root != "" {
			if below, ok := strings.CutPrefix(dir+"/", strings.TrimSuffix(root, "/")+"/"); ok {
				ci.Dir = strings.TrimSuffix(below, "/")
			}
		}
		return ci
	case getenv("GITLAB_CI") == "true":
		return CI{Kind: GitLab}
	}
	return CI{}
}

// open begins the lines of a node.
func (c CI) open(w io.Writer, node string, at time.Time) {
	title := logtext.Line(node)
	switch c.Kind {
	case GitHub:
		_, _ = fmt.Fprintf(w, "::group::%s\n", data(title))
	case GitLab:
		_, _ = fmt.Fprintf(w, "\x1b[0Ksection_start:%d:%s[collapsed=true]\r\x1b[0K%s\n", at.Unix(), sectionName(node), title)
	default:
		_, _ = fmt.Fprintf(w, "%s\n", title)
	}
}

// close ends them.
func (c CI) close(w io.Writer, node string, at time.Time) {
	switch c.Kind {
	case GitHub:
		_, _ = io.WriteString(w, "::endgroup::\n")
	case GitLab:
		_, _ = fmt.Fprintf(w, "\x1b[0Ksection_end:%d:%s\r\x1b[0K\n", at.Unix(), sectionName(node))
	}
}

// sectionName is a node as GitLab names sections.
func sectionName(node string) string {
	return "kaniko_build_" + strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '_' || r == '.' || r == '-' {
			return r
		}
		return '_'
	}, node)
}

// Problems is the annotations for the mistakes that an error or a list of
// warnings consists of, "" for one that is about no file, and where the CI has no
// such thing. level is error or warning.
func (c CI) Problems(level string, err error) string {
	var many diag.Problems
	var one *diag.Problem
	if !errors.As(err, &many) && errors.As(err, &one) {
		many = diag.Problems{one}
	}
	var b strings.Builder
	for _, p := range many {
		if p.Pos.File != "" {
			b.WriteString(c.command(level, p.Pos, "", strings.TrimSuffix(p.What+"\n"+p.Hint, "\n")))
		}
	}
	return b.String()
}

// annotation is the line that shows a warning or a failure at its place in the
// file, "" where the CI has no such thing.
func (c CI) annotation(e Event) string {
	level := ""
	switch e.Kind {
	case executor.Warning:
		level = "warning"
	case executor.StepFailed, NodeFailed:
		level = "error"
	}
	if level == "" {
		return ""
	}
	return c.command(level, e.Pos, strings.TrimSpace(e.Node+" "+e.Rule), e.Text)
}

// command is a workflow command that shows a text at a place.
func (c CI) command(level string, pos diag.Pos, title, text string) string {
	if c.Kind != GitHub {
		return ""
	}
	var props []string
	if file := pos.File; file != "" {
		if !path.IsAbs(file) {
			file = path.Join(c.Dir, file)
		}
		props = append(props, "file="+property(logtext.Line(file)))
		if pos.Line > 0 {
			props = append(props, fmt.Sprintf("line=%d", pos.Line))
		}
		if pos.Col > 0 {
			props = append(props, fmt.Sprintf("col=%d", pos.Col))
		}
	}
	if title != "" {
		props = append(props, "title="+property(logtext.Line(title)))
	}
	return fmt.Sprintf("::%s %s::%s\n", level, strings.Join(props, ","), data(logtext.Lines(text)))
}

// data and property write text as workflow commands have it: nothing in it ends
// the command or begins another.
func data(s string) string {
	return strings.NewReplacer("%", "%25", "\r", "%0D", "\n", "%0A").Replace(s)
}

func property(s string) string {
	return strings.NewReplacer("%", "%25", "\r", "%0D", "\n", "%0A", ":", "%3A", ",", "%2C").Replace(s)
}
