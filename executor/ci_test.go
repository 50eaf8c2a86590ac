package executor

import "testing"

func TestStranger(t *testing.T) {
	type env map[string]string
	for _, c := range []struct {
		name string
		env  env
		want string
	}{
		{"a laptop", env{}, ""},
		{"GitHub, a push", env{"GITHUB_EVENT_NAME": "push", "CI": "true"}, ""},
		{"GitHub, a pull request", env{"GITHUB_EVENT_NAME": "pull_request"}, "GITHUB_EVENT_NAME=pull_request"},
		{"GitHub, a pull request with the base's rights", env{"GITHUB_EVENT_NAME": "pull_request_target"}, "GITHUB_EVENT_NAME=pull_request_target"},
		{"GitLab, a push", env{"CI_PIPELINE_SOURCE": "push", "CI_PROJECT_ID": "1"}, ""},
		{"GitLab, a merge request of the project", env{"CI_PIPELINE_SOURCE": "merge_request_event", "CI_MERGE_REQUEST_IID": "4", "CI_MERGE_REQUEST_SOURCE_PROJECT_ID": "1", "CI_MERGE_REQUEST_PROJECT_ID": "1"}, ""},
		{"GitLab, a merge request of a fork", env{"CI_PIPELINE_SOURCE": "merge_request_event", "CI_MERGE_REQUEST_SOURCE_PROJECT_ID": "2", "CI_MERGE_REQUEST_PROJECT_ID": "1"}, "CI_MERGE_REQUEST_SOURCE_PROJECT_ID=2"},
		{"GitLab, a child pipeline of one", env{"CI_PIPELINE_SOURCE": "parent_pipeline", "CI_MERGE_REQUEST_IID": "4", "CI_MERGE_REQUEST_SOURCE_PROJECT_ID": "2", "CI_MERGE_REQUEST_PROJECT_ID": "1"}, "CI_MERGE_REQUEST_SOURCE_PROJECT_ID=2"},
		{"GitLab, a merge request of unknown origin", env{"CI_PIPELINE_SOURCE": "merge_request_event"}, "CI_MERGE_REQUEST_SOURCE_PROJECT_ID="},
		{"GitLab, a pull request of GitHub", env{"CI_PIPELINE_SOURCE": "external_pull_request_event"}, "CI_PIPELINE_SOURCE=external_pull_request_event"},
		{"Woodpecker", env{"CI_PIPELINE_EVENT": "pull_request"}, "CI_PIPELINE_EVENT=pull_request"},
		{"Drone", env{"DRONE_BUILD_EVENT": "pull_request"}, "DRONE_BUILD_EVENT=pull_request"},
		{"Drone, a push", env{"DRONE_BUILD_EVENT": "push"}, ""},
		{"Jenkins, a change of the repository", env{"CHANGE_ID": "7"}, ""},
		{"Jenkins, a change of a fork", env{"CHANGE_ID": "7", "CHANGE_FORK": "eve"}, "CHANGE_FORK=eve"},
		{"CircleCI, a fork", env{"CIRCLE_PR_NUMBER": "7"}, "CIRCLE_PR_NUMBER=7"},
		{"Azure, a fork", env{"SYSTEM_PULLREQUEST_ISFORK": "True"}, "SYSTEM_PULLREQUEST_ISFORK=True"},
		{"Azure, no fork", env{"SYSTEM_PULLREQUEST_ISFORK": "False"}, ""},
		{"Travis, a push", env{"TRAVIS_PULL_REQUEST": "false"}, ""},
		{"Travis, a fork", env{"TRAVIS_PULL_REQUEST": "7", "TRAVIS_PULL_REQUEST_SLUG": "eve/app", "TRAVIS_REPO_SLUG": "ann/app"}, "TRAVIS_PULL_REQUEST=7"},
		{"Travis, no fork", env{"TRAVIS_PULL_REQUEST": "7", "TRAVIS_PULL_REQUEST_SLUG": "ann/app", "TRAVIS_REPO_SLUG": "ann/app"}, ""},
		{"Buildkite, a fork", env{"BUILDKITE_PULL_REQUEST": "7", "BUILDKITE_PULL_REQUEST_REPO": "git://h/eve/app", "BUILDKITE_REPO": "git@h:ann/app"}, "BUILDKITE_PULL_REQUEST=7"},
		{"Semaphore, a fork", env{"SEMAPHORE_GIT_PR_NUMBER": "7", "SEMAPHORE_GIT_PR_SLUG": "eve/app", "SEMAPHORE_GIT_REPO_SLUG": "ann/app"}, "SEMAPHORE_GIT_PR_NUMBER=7"},
		{"Cirrus", env{"CIRRUS_PR": "7"}, "CIRRUS_PR=7"},
		{"Prow", env{"JOB_TYPE": "presubmit", "PROW_JOB_ID": "x"}, "JOB_TYPE=presubmit"},
		{"JOB_TYPE of something else", env{"JOB_TYPE": "presubmit"}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			why, ok := Stranger(func(name string) string { return c.env[name] })
			if why != c.want || ok != (c.want != "") {
				t.Errorf("got %q, %v, want %q for %v", why, ok, c.want, c.env)
			}
		})
	}
}
