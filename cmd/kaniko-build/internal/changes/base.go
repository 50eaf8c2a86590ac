package changes

import (
	"encoding/json"
	"os"
	"strings"
)

// Range is what is compared: the merge base of Base and Head with Head. Head ""
// is the work tree, with what is staged and what git does not know yet.
type Range struct {
	Base, Head string
	From       string // who said so, for people
}

// ParseRange reads BASE, BASE..HEAD or BASE...HEAD.
func ParseRange(text string) Range {
	base, head, _ := strings.Cut(strings.Replace(text, "...", "..", 1), "..")
	return Range{Base: base, Head: head, From: "--affected"}
}

// noCommit is how CIs write that there was no commit before.
const noCommit = "0000000000000000000000000000000000000000"

// Base is the revision that a CI compares with, by its variables; ok is false when
// none of them says so.
func Base(getenv func(string) string) (r Range, ok bool) {
	for _, c := range []struct{ variable, prefix string }{
		{"CI_MERGE_REQUEST_DIFF_BASE_SHA", ""},             // GitLab
		{"GITHUB_BASE_REF", "origin/"},                     // GitHub and Gitea, of a pull request
		{"BITBUCKET_PR_DESTINATION_BRANCH", "origin/"},     //
		{"BUILDKITE_PULL_REQUEST_BASE_BRANCH", "origin/"},  //
		{"CHANGE_TARGET", "origin/"},                       // Jenkins
		{"SYSTEM_PULLREQUEST_TARGETBRANCHNAME", "origin/"}, // Azure
		{"CI_COMMIT_BEFORE_SHA", ""},                       // GitLab, of a push
		{"DRONE_COMMIT_BEFORE", ""},                        // and Woodpecker's old name
		{"CI_PREV_COMMIT_SHA", ""},                         // Woodpecker
	} {
		if v := getenv(c.variable); v != "" && v != noCommit {
			return Range{Base: c.prefix + v, From: c.variable}, true
		}
	}
	if before := pushed(getenv("GITHUB_EVENT_PATH")); before != "" && before != noCommit {
		return Range{Base: before, From: "the push of GITHUB_EVENT_PATH"}, true
	}
	return Range{}, false
}

// pushed is the commit before a push, by GitHub's description of the event.
func pushed(file string) string {
	if file == "" {
		return ""
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return ""
	}
	var event struct{ Before string }
	if json.Unmarshal(b, &event) != nil {
		return ""
	}
	return event.Before
}
