package schema

import (
	"slices"
	"strings"

	"kaniko-build/schema/diag"
)

// ciFacts is what ${ci.name} and its like know: the name of the CI, the branch,
// tag and commit that it builds, the number of the pull or merge request, the
// branch that it is to be merged into, and a number that tells this run from others.
var ciFacts = []string{"name", "branch", "tag", "sha", "request", "target", "run"}

// ciSystem says where a CI keeps what we ask it.
type ciSystem struct {
	name  string
	mark  string            // the variable that says it is this one
	facts map[string]string // variables, with | between alternatives
}

// ciSystems are told apart by the first mark that is set. Sources: the lists of
// predefined variables in each system's documentation.
var ciSystems = []ciSystem{
	{"github", "GITHUB_ACTIONS", map[string]string{"sha": "GITHUB_SHA", "target": "GITHUB_BASE_REF", "run": "GITHUB_RUN_ID"}},
	{"gitlab", "GITLAB_CI", map[string]string{"branch": "CI_MERGE_REQUEST_SOURCE_BRANCH_NAME|CI_COMMIT_BRANCH", "tag": "CI_COMMIT_TAG", "sha": "CI_COMMIT_SHA",
		"request": "CI_MERGE_REQUEST_IID", "target": "CI_MERGE_REQUEST_TARGET_BRANCH_NAME", "run": "CI_PIPELINE_ID"}},
	{"jenkins", "JENKINS_URL", map[string]string{"branch": "CHANGE_BRANCH|BRANCH_NAME", "tag": "TAG_NAME", "sha": "GIT_COMMIT",
		"request": "CHANGE_ID", "target": "CHANGE_TARGET", "run": "BUILD_NUMBER"}},
	{"buildkite", "BUILDKITE", map[string]string{"branch": "BUILDKITE_BRANCH", "tag": "BUILDKITE_TAG", "sha": "BUILDKITE_COMMIT",
		"request": "BUILDKITE_PULL_REQUEST", "target": "BUILDKITE_PULL_REQUEST_BASE_BRANCH", "run": "BUILDKITE_BUILD_NUMBER"}},
	{"circleci", "CIRCLECI", map[string]string{"branch": "CIRCLE_BRANCH", "tag": "CIRCLE_TAG", "sha": "CIRCLE_SHA1", "run": "CIRCLE_BUILD_NUM"}},
	{"woodpecker", "CI_PIPELINE_NUMBER", map[string]string{"branch": "CI_COMMIT_SOURCE_BRANCH|CI_COMMIT_BRANCH", "tag": "CI_COMMIT_TAG", "sha": "CI_COMMIT_SHA",
		"request": "CI_COMMIT_PULL_REQUEST", "target": "CI_COMMIT_TARGET_BRANCH", "run": "CI_PIPELINE_NUMBER"}},
}

// ciFact is one fact; outside of a CI, and where it does not say, it has no value.
func (s *scope) ciFact(name string) (*value, error) {
	if !slices.Contains(ciFacts, name) {
		return nil, unknownFact("ci", name, ciFacts)
	}
	for _, ci := range ciSystems {
		if mark, _ := s.opts.lookupEnv(ci.mark); mark == "" || mark == "false" {
			continue
		}
		text := ci.name
		if name != "name" {
			text = s.firstSet(ci.facts[name])
		}
		if ci.name == "github" && text == "" {
			text = s.gitHub(name)
		}
		if text == "" || text == "false" { // what Buildkite says where there is no request
			return nil, nil
		}
		return newText(diag.Pos{}, text), nil
	}
	return nil, nil
}

// gitHub is what GitHub says by the kind of its ref only.
func (s *scope) gitHub(name string) string {
	kind, ref := s.firstSet("GITHUB_REF_TYPE"), s.firstSet("GITHUB_REF")
	request, isRequest := strings.CutPrefix(ref, "refs/pull/")
	switch {
	case name == "request" && isRequest:
		number, _, _ := strings.Cut(request, "/")
		return number
	case name == "branch" && isRequest:
		return s.firstSet("GITHUB_HEAD_REF")
	case name == kind: // branch or tag
		return s.firstSet("GITHUB_REF_NAME")
	}
	return ""
}

// firstSet is the first of some variables that is not empty.
func (s *scope) firstSet(names string) string {
	for name := range strings.SplitSeq(names, "|") {
		if text, _ := s.opts.lookupEnv(name); name != "" && text != "" {
			return text
		}
	}
	return ""
}

// ciBranch is the branch that a CI builds, "" outside of one.
func (s *scope) ciBranch() string {
	v, _ := s.ciFact("branch") // the name is known
	return v.str()
}
