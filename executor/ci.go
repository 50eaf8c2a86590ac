package executor

import (
	"slices"
	"strings"
)

// Stranger tells whether a run is one of a CI for a change from outside: a
// merge request of another project, or a pull request. What such a run builds is
// not to be believed by others, so it does not write caches. why names the
// variables that say so. getenv is os.Getenv or a stand-in.
//
// GitHub does not tell in the environment where a pull request comes from: all
// of them count.
func Stranger(getenv func(string) string) (why string, ok bool) {
	is := func(name string, values ...string) bool { return slices.Contains(values, getenv(name)) }
	differ := func(a, b string) bool { return getenv(a) == "" || getenv(a) != getenv(b) }
	says := func(name string) (string, bool) { return name + "=" + getenv(name), true }
	switch {
	case strings.HasPrefix(getenv("GITHUB_EVENT_NAME"), "pull_request"): // Gitea and Forgejo too
		return says("GITHUB_EVENT_NAME")
	case is("CI_PIPELINE_SOURCE", "external_pull_request_event"): // GitLab
		return says("CI_PIPELINE_SOURCE")
	case (is("CI_PIPELINE_SOURCE", "merge_request_event") || getenv("CI_MERGE_REQUEST_IID") != "") &&
		differ("CI_MERGE_REQUEST_SOURCE_PROJECT_ID", "CI_MERGE_REQUEST_PROJECT_ID"):
		return says("CI_MERGE_REQUEST_SOURCE_PROJECT_ID")
	case getenv("CI_PIPELINE_EVENT") == "pull_request": // Woodpecker
		return says("CI_PIPELINE_EVENT")
	case getenv("DRONE_BUILD_EVENT") == "pull_request":
		return says("DRONE_BUILD_EVENT")
	case getenv("CHANGE_FORK") != "": // Jenkins
		return says("CHANGE_FORK")
	case getenv("CIRCLE_PR_NUMBER") != "": // set for forks only
		return says("CIRCLE_PR_NUMBER")
	case is("SYSTEM_PULLREQUEST_ISFORK", "True", "true"): // Azure Pipelines
		return says("SYSTEM_PULLREQUEST_ISFORK")
	case !is("TRAVIS_PULL_REQUEST", "", "false") && differ("TRAVIS_PULL_REQUEST_SLUG", "TRAVIS_REPO_SLUG"):
		return says("TRAVIS_PULL_REQUEST")
	case !is("BUILDKITE_PULL_REQUEST", "", "false") && differ("BUILDKITE_PULL_REQUEST_REPO", "BUILDKITE_REPO"):
		return says("BUILDKITE_PULL_REQUEST")
	case getenv("SEMAPHORE_GIT_PR_NUMBER") != "" && differ("SEMAPHORE_GIT_PR_SLUG", "SEMAPHORE_GIT_REPO_SLUG"):
		return says("SEMAPHORE_GIT_PR_NUMBER")
	case getenv("CIRRUS_PR") != "":
		return says("CIRRUS_PR")
	case getenv("JOB_TYPE") == "presubmit" && getenv("PROW_JOB_ID") != "":
		return says("JOB_TYPE")
	}
	return "", false
}
