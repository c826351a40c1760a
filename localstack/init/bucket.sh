#!/bin/sh
# Run by LocalStack's image once it is ready.
exec awslocal s3 mb s3://aquifer
