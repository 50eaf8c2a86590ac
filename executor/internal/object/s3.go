package object

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go"

	"kaniko-build/executor/internal/retry"
)

// openS3 reads an object with the default chain of AWS credentials: variables,
// profile, web identity, container or instance role. S3_ENDPOINT names another
// server, S3_FORCE_PATH_STYLE=true puts the bucket into its path.
func openS3(ctx context.Context, a address, o Options) (io.ReadCloser, error) {
	at := "s3://" + a.bucket + "/" + a.name
	var load []func(*config.LoadOptions) error
	if o.Client != nil { // else its own, which knows AWS_CA_BUNDLE
		load = append(load, config.WithHTTPClient(o.Client))
	}
	cfg, err := config.LoadDefaultConfig(ctx, load...)
	if err != nil {
		return nil, fmt.Errorf("read %s: load the configuration of AWS: %w", at, err)
	}
	if cfg.Region == "" {
		cfg.Region = "us-east-1" // what other servers than Amazon's expect
	}
	client := s3.NewFromConfig(cfg, func(so *s3.Options) {
		so.DisableLogOutputChecksumValidationSkipped = true // it is no news that an object has none
		if endpoint := o.Getenv("S3_ENDPOINT"); endpoint != "" {
			so.BaseEndpoint = aws.String(endpoint)
			so.UsePathStyle = o.Getenv("S3_FORCE_PATH_STYLE") == "true"
		}
	})
	in := &s3.GetObjectInput{Bucket: aws.String(a.bucket), Key: aws.String(a.name)}
	out, err := client.GetObject(ctx, in)
	var answer *awshttp.ResponseError
	var api smithy.APIError
	switch {
	case errors.As(err, &answer):
		said := ""
		if errors.As(err, &api) {
			said = api.ErrorCode() + ": " + api.ErrorMessage()
		}
		return nil, refused(at, answer.HTTPStatusCode(), said, "give credentials that may read the bucket, as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or as a role, and its region in AWS_REGION")
	case err != nil:
		return nil, fmt.Errorf("read %s: %w", at, err)
	}
	return retry.NewReader(ctx, out.Body, func(ctx context.Context, offset int64) (io.ReadCloser, error) {
		rest := *in
		rest.Range, rest.IfMatch = aws.String(fmt.Sprintf("bytes=%d-", offset)), out.ETag
		more, err := client.GetObject(ctx, &rest)
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", at, err)
		}
		if out.ETag == nil || more.ContentRange == nil {
			more.Body.Close()
			return nil, fmt.Errorf("read %s: the server does not go on where it was cut", at)
		}
		return more.Body, nil
	}), nil
}
